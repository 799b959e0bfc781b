/* The ceiling of benchmarks/fanout.py: the least that a relay over OpenSSL can be. It speaks our frames, answers every hello with the welcome
   it is given, and writes each packet to all links but its sender's. No session, no check, no resume; one thread, one log of segments of at
   most one TLS record, one cursor a link.

   relay CERTIFICATE KEY WELCOME        prints its port */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEGMENT 16384
#define KEPT 4096
#define READ 65536
#define LINKS 65536

struct link {
    int fd, up, blocked, sender, filled;
    SSL *ssl;
    uint64_t at; /* the next segment */
    unsigned char *in;
};

static struct link *links[LINKS];
static struct link *readers[LINKS];
static int many;
static unsigned char *segments[KEPT];
static int sizes[KEPT];
static uint64_t head; /* the segment that is being filled */
static int epoll_fd;

static void watch(struct link *l, int operation) {
    struct epoll_event e = {.events = EPOLLIN | (l->blocked ? EPOLLOUT : 0), .data.fd = l->fd};
    epoll_ctl(epoll_fd, operation, l->fd, &e);
}

static void feed(struct link *l) {
    int was = l->blocked;
    l->blocked = 0;
    if (head - l->at >= KEPT) l->at = head;      /* lost: a ceiling need not be reliable */
    for (; l->at < head; l->at++)
        if (SSL_write(l->ssl, segments[l->at % KEPT], sizes[l->at % KEPT]) <= 0) {
            l->blocked = 1;
            break;
        }
    if (was != l->blocked) watch(l, EPOLL_CTL_MOD);
}

static void append(const unsigned char *frame, int size) {
    int slot = head % KEPT;
    if (sizes[slot] + size > SEGMENT) {
        head++;
        slot = head % KEPT;
        sizes[slot] = 0;
    }
    if (!segments[slot]) segments[slot] = malloc(SEGMENT + 64);
    memcpy(segments[slot] + sizes[slot], frame, size);
    segments[slot][sizes[slot] + 5] = 1;         /* hops */
    sizes[slot] += size;
}

static void spread(void) {
    if (!sizes[head % KEPT]) return;
    head++;
    sizes[head % KEPT] = 0;
    for (int i = 0; i < many; i++)
        if (!readers[i]->blocked && !readers[i]->sender) feed(readers[i]);
}

static void take(struct link *l, const unsigned char *welcome, int welcome_size) {
    for (int budget = READ; budget > 0;) {
        int got = SSL_read(l->ssl, l->in + l->filled, READ - l->filled), at = 0;
        if (got <= 0) {
            if (SSL_get_error(l->ssl, got) == SSL_ERROR_WANT_READ) return;
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, l->fd, NULL);
            close(l->fd);
            l->blocked = 1;
            return;
        }
        budget -= got;
        l->filled += got;
        while (l->filled - at >= 8) {
            unsigned char *p = l->in + at;
            int size = p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
            if (l->filled - at < 8 + size) break;
            if (p[4] == 1) {
                SSL_write(l->ssl, welcome, welcome_size);
                l->at = head;
                l->up = 1;
                readers[many++] = l;
            } else if (p[4] == 5) {
                p[4] = 6;
                SSL_write(l->ssl, p, 8 + size);
            } else if (p[4] == 0) {
                l->sender = 1;
                append(p, 8 + size);
            }
            at += 8 + size;
        }
        memmove(l->in, l->in + at, l->filled - at);
        l->filled -= at;
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t length = sizeof a;
    unsigned char welcome[4096];
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (argc < 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    FILE *f = fopen(argv[3], "rb");
    int welcome_size = f ? (int)fread(welcome, 1, sizeof welcome, f) : 0;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 || SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1) return 3;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1024)) return 4;
    getsockname(listener, (struct sockaddr *)&a, &length);
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    epoll_fd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                struct link *l = links[fd] = calloc(1, sizeof *l);
                l->fd = fd;
                l->in = malloc(READ);
                l->ssl = SSL_new(context);
                SSL_set_fd(l->ssl, fd);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                if (SSL_accept(l->ssl) != 1) { close(fd); continue; }
                fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
                watch(l, EPOLL_CTL_ADD);
                continue;
            }
            if (events[i].events & EPOLLOUT) feed(links[fd]);
            if (events[i].events & ~EPOLLOUT) take(links[fd], welcome, welcome_size);
        }
        spread();
    }
}
