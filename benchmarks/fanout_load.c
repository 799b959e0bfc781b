/* The generator and the receivers of benchmarks/fanout.py: one thread, so that they cost the two cores little.

   load HOST PORT nats|parley RECEIVERS DECRYPTING PREAMBLES MESSAGE COUNTER STAMP FIRST

   PREAMBLES is a file: for each receiver, then for the sender, a big-endian u32 length and what it says first. MESSAGE is a file with one
   message as the sender writes it; COUNTER and STAMP are the offsets of two big-endian u64 in it, counted from the packet's first byte;
   FIRST is the first counter. The
   first DECRYPTING receivers read TLS, check the order and sample the latency; the others count plaintext bytes by the lengths of TLS records.

   Then, on stdin:   run WINDOW RATE PACKETS     at most WINDOW packets in flight (RATE 0), or RATE packets a second
                     idle SECONDS                keep-alives and nothing else
                     talk RATE SECONDS GROUP     links are in groups of GROUP, each in a session of its own, numbered on from the message's;
                                                 RATE packets a second, from the first link of one group after the other
   Each answers one JSON object on stdout. `handshakes N` instead of a number of receivers connects N times and says how long it took. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
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
#include <time.h>
#include <unistd.h>

#define READ (256 * 1024)

struct link {
    int fd, decrypts, sender;
    SSL *ssl;
    uint64_t bytes, base;      /* plaintext received; before the run */
    uint64_t next;             /* the counter that must come, if it decrypts */
    unsigned char head[5];
    int headed, left;          /* of the TLS record under way */
    unsigned char *buffer;
    int filled;
};

static struct link *links;
static int count, decrypting, nats, epoll_fd;
static unsigned char *message;
static int message_size, packet_at, packet_size, incoming_size, counter_at, stamp_at;
static uint64_t sent, wrong, *samples, sampled, room, last_ping;
static unsigned char scratch[READ];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s (%s)\n", what, strerror(errno));
    exit(1);
}

static void ping(struct link *l) {
    static const unsigned char frame[] = {0, 0, 0, 2, 5, 0, 0, 0, 0x91, 1};
    if (!nats) SSL_write(l->ssl, frame, sizeof frame);
}

static void ping_all(void) {
    uint64_t now = now_ns();
    if (now - last_ping < 900000000ull) return;
    last_ping = now;
    for (int i = 0; i < count; i++) if (links[i].ssl) ping(&links[i]);
}

static void ping_spread(void) {                   /* one link after the other, as those of many machines are */
    static uint64_t pinged;
    uint64_t now = now_ns(), due = (now - last_ping) * count / 900000000ull;
    for (; pinged < due; pinged++) ping(&links[pinged % count]);
    if (pinged >= (uint64_t)count) pinged = 0, last_ping = now;
}

static int dial(const char *host, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, host, &a.sin_addr);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (nats) {                                   /* INFO comes in clear, up to the end of its line */
        char c = 0;
        while (c != '\n') if (read(fd, &c, 1) != 1) die("INFO");
    }
    return fd;
}

static SSL *handshake(SSL_CTX *context, int fd) {
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) die("handshake");
    return ssl;
}

/* Until the welcome (a frame of type 2), or PONG. What comes later in the same read is lost: nothing has been sent yet. */
static void greet(struct link *l, const unsigned char *preamble, int size) {
    unsigned char in[65536];
    int have = 0;
    if (SSL_write(l->ssl, preamble, size) != size) die("preamble");
    for (;;) {
        int got = SSL_read(l->ssl, in + have, sizeof in - have);
        if (got <= 0) die("greeting");
        have += got;
        if (nats ? !!memmem(in, have, "PONG\r\n", 6) : have >= 8 && in[4] == 2) return;
        if (!nats && in[4] == 3) { fprintf(stderr, "refused: %.*s\n", have - 8, in + 8); exit(1); }
    }
}

static void received(struct link *l, const unsigned char *packet) {
    uint64_t counter, stamp;
    memcpy(&counter, packet + counter_at, 8);
    memcpy(&stamp, packet + stamp_at, 8);
    counter = be64toh(counter);
    if (counter != l->next) wrong++;
    l->next = counter + 1;
    if (sampled < room) samples[sampled++] = now_ns() - be64toh(stamp);
}

static void parse(struct link *l) {
    int at = 0;
    while (at < l->filled) {
        unsigned char *p = l->buffer + at;
        int left = l->filled - at;
        if (nats) {
            unsigned char *end = memchr(p, '\n', left);
            if (!end) break;
            if (*p == 'M') {
                int whole = (int)(end + 1 - p) + packet_size + 2;
                if (left < whole) break;
                received(l, end + 1);
                at += whole;
            } else at += (int)(end + 1 - p);
        } else {
            uint32_t size;
            if (left < 8) break;
            memcpy(&size, p, 4);
            size = ntohl(size);
            if (left < 8 + (int)size) break;
            if (p[4] == 0) received(l, p + 8);
            if (p[4] == 3) { fprintf(stderr, "closed: %.*s\n", (int)size, p + 8); exit(1); }
            at += 8 + size;
        }
    }
    memmove(l->buffer, l->buffer + at, l->filled - at);
    l->filled -= at;
}

static void take(struct link *l) {
    if (l->decrypts || l->sender) {
        int got;
        while ((got = SSL_read(l->ssl, l->buffer + l->filled, READ - l->filled)) > 0) {
            l->bytes += got;
            l->filled += got;
            parse(l);
        }
        if (SSL_get_error(l->ssl, got) != SSL_ERROR_WANT_READ) die("a link was closed");
        return;
    }
    int got = recv(l->fd, scratch, READ, 0);
    if (got <= 0) { if (got < 0 && errno == EAGAIN) return; die("a link was closed"); }
    for (int at = 0; at < got;) {
        if (l->left) {
            int part = l->left < got - at ? l->left : got - at;
            l->left -= part;
            at += part;
        } else {
            l->head[l->headed++] = scratch[at++];
            if (l->headed == 5) {
                l->headed = 0;
                l->left = l->head[3] << 8 | l->head[4];
                l->bytes += l->left - 17;         /* content type and tag */
            }
        }
    }
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t taken(void) {                     /* by the slowest of those that decrypt */
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < decrypting; i++) if (links[i].next < least) least = links[i].next;
    return least;
}

static void look(int timeout) {
    struct epoll_event events[256];
    int n = epoll_wait(epoll_fd, events, 256, timeout);
    for (int i = 0; i < n; i++) take(&links[events[i].data.u32]);
}

static void turn(int timeout) {
    look(timeout);
    ping_all();
}

static void turn_spread(int timeout) {
    look(timeout);
    ping_spread();
}

static void put(unsigned char *out, uint64_t counter, uint64_t stamp) {
    counter = htobe64(counter);
    stamp = htobe64(stamp);
    memcpy(out, message, message_size);
    memcpy(out + packet_at + counter_at, &counter, 8);
    memcpy(out + packet_at + stamp_at, &stamp, 8);
}

static void run(uint64_t window, double rate, uint64_t packets, double seconds) {
    struct link *sender = &links[count - 1];
    unsigned char out[4 * 16384];
    uint64_t first = sent, start = now_ns(), limit = start + (uint64_t)(seconds * 1e9);
    int batch = 16384 / message_size ? 16384 / message_size : 1;
    wrong = sampled = 0;
    for (int i = 0; i < count; i++) links[i].base = links[i].bytes;
    while (sent - first < packets && now_ns() < limit) {
        uint64_t may, now = now_ns();
        if (rate > 0) {
            uint64_t due = first + (uint64_t)((now - start) * rate / 1e9) + 1;
            may = due > sent ? 1 : 0;
        } else {
            uint64_t flying = sent - taken();
            may = flying < window ? window - flying : 0;
            if (may && may < window / 4 && flying) may = 0;     /* a real sender writes more than a drop at a time */
        }
        if (may > (uint64_t)batch) may = batch;
        if (may > packets - (sent - first)) may = packets - (sent - first);
        if (may) {
            for (uint64_t i = 0; i < may; i++) put(out + i * message_size, sent + i, now_ns());
            int size = may * message_size, done;
            while ((done = SSL_write(sender->ssl, out, size)) != size) {
                if (SSL_get_error(sender->ssl, done) != SSL_ERROR_WANT_WRITE) die("sending");
                turn(1);
            }
            sent += may;
            turn(0);
        } else if (rate > 0) {
            uint64_t next = start + (uint64_t)((sent - first) * 1e9 / rate);
            now = now_ns();
            if (next > now + 1200000) turn((next - now) / 1000000);
            else if (next > now) {
                struct timespec t = {0, (long)(next - now) < 100000 ? (long)(next - now) : 100000};
                turn(0);
                nanosleep(&t, NULL);
            }
        } else turn(1);
    }
    uint64_t number = sent - first, want = number * incoming_size, deadline = now_ns() + 5000000000ull, complete = 0;
    double sending = (now_ns() - start) / 1e9;
    while (now_ns() < deadline) {
        complete = 0;
        for (int i = 0; i < count - 1; i++) complete += links[i].decrypts ? links[i].next == sent : links[i].bytes - links[i].base >= want;
        if (complete == (uint64_t)count - 1) break;
        turn(1);
    }
    qsort(samples, sampled, 8, by_value);
    printf("{\"sent\": %llu, \"receivers\": %d, \"complete\": %llu, \"wrong\": %llu, \"seconds\": %.4f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)number, count - 1, (unsigned long long)complete, (unsigned long long)wrong, sending,
           sampled ? samples[sampled / 2] / 1e3 : 0, sampled ? samples[sampled * 99 / 100] / 1e3 : 0);
    fflush(stdout);
}

static void talk(double rate, double seconds, int group) {
    static uint64_t talked;
    unsigned char out[2 * 16384];
    uint64_t groups = count / group, rounds = (uint64_t)(rate * seconds) / groups, number = rounds * groups, start = now_ns(), base, waits = 1;
    memcpy(&base, message + packet_at + 4, 8);
    base = be64toh(base);
    wrong = sampled = 0;
    for (uint64_t k = 0; k < number;) {
        if (k > (uint64_t)((now_ns() - start) * rate / 1e9)) {
            turn_spread(1);
            continue;
        }
        uint64_t session = htobe64(base + k % groups);
        put(out, talked + k / groups, now_ns());
        memcpy(out + packet_at + 4, &session, 8);
        if (SSL_write(links[k % groups * group].ssl, out, message_size) != message_size) die("talking");
        k++;
        turn_spread(0);
    }
    talked += rounds;
    for (uint64_t deadline = now_ns() + 5000000000ull; waits && now_ns() < deadline; turn_spread(1)) {
        waits = 0;
        for (int i = 0; i < decrypting; i++) waits += i % group && links[i].next != talked;
    }
    qsort(samples, sampled, 8, by_value);
    printf("{\"sent\": %llu, \"missing\": %llu, \"wrong\": %llu, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", (unsigned long long)number,
           (unsigned long long)waits, (unsigned long long)wrong, sampled ? samples[sampled / 2] / 1e3 : 0, sampled ? samples[sampled * 99 / 100] / 1e3 : 0);
    fflush(stdout);
}

static unsigned char *slurp(const char *path, int *size) {
    FILE *f = fopen(path, "rb");
    if (!f) die(path);
    fseek(f, 0, SEEK_END);
    *size = ftell(f);
    rewind(f);
    unsigned char *data = malloc(*size + 1);
    if (fread(data, 1, *size, f) != (size_t)*size) die(path);
    fclose(f);
    return data;
}

int main(int argc, char **argv) {
    if (argc < 5) die("usage: load HOST PORT nats|parley RECEIVERS DECRYPTING PREAMBLES MESSAGE COUNTER STAMP FIRST");
    signal(SIGPIPE, SIG_IGN);
    const char *host = argv[1];
    int port = atoi(argv[2]), size = 0, at = 0;
    nats = !strcmp(argv[3], "nats");
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (!nats) SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x08parley/1", 9);
    if (!strcmp(argv[4], "handshakes")) {
        int number = atoi(argv[5]), resumed = 0;
        SSL_SESSION *session = NULL;
        for (int i = 0; i < number; i++) {
            int fd = dial(host, port);
            SSL *ssl = SSL_new(context);
            SSL_set_fd(ssl, fd);
            if (argc > 6 && session) SSL_set_session(ssl, session);
            if (SSL_connect(ssl) != 1) die("handshake");
            resumed += SSL_session_reused(ssl);
            if (argc > 6) {                       /* wait a moment for the ticket, which comes behind the handshake */
                unsigned char c;
                struct timeval patience = {0, 20000};
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
                if (!session) SSL_read(ssl, &c, 1);
                SSL_SESSION *fresh = SSL_get1_session(ssl);
                if (fresh && SSL_SESSION_is_resumable(fresh)) session = fresh;
            }
            SSL_shutdown(ssl);
            SSL_free(ssl);
            close(fd);
        }
        printf("{\"handshakes\": %d, \"resumed\": %d}\n", number, resumed);
        return 0;
    }
    count = atoi(argv[4]) + 1;
    decrypting = atoi(argv[5]);
    unsigned char *preambles = slurp(argv[6], &size);
    message = slurp(argv[7], &message_size);
    counter_at = atoi(argv[8]);
    stamp_at = atoi(argv[9]);
    sent = strtoull(argv[10], NULL, 10);
    if (nats) {
        unsigned char *end = memchr(message, '\n', message_size);
        packet_at = end + 1 - message;
        packet_size = message_size - packet_at - 2;
        incoming_size = message_size + 2;         /* "MSG x 1 n" for "PUB x n" */
    } else {
        packet_at = 8;
        packet_size = message_size - 8;
        incoming_size = message_size;
    }
    links = calloc(count, sizeof *links);
    room = 4000000;
    samples = malloc(room * 8);
    epoll_fd = epoll_create1(0);
    last_ping = now_ns();
    for (int i = 0; i < count; i++) {
        struct link *l = &links[i];
        uint32_t length;
        memcpy(&length, preambles + at, 4);
        length = ntohl(length);
        l->fd = dial(host, port);
        SSL *ssl = handshake(context, l->fd);
        l->ssl = ssl;
        l->sender = i == count - 1;
        l->decrypts = i < decrypting;
        l->next = sent;
        if (l->sender || l->decrypts) l->buffer = malloc(READ);
        greet(l, preambles + at + 4, length);
        at += 4 + length;
        fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) | O_NONBLOCK);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, l->fd, &e);
        ping_all();
        if (i % 16 == 15) turn(0);
    }
    uint64_t settled = now_ns() + 500000000ull;
    while (now_ns() < settled) turn(10);
    printf("{\"links\": %d}\n", count);
    fflush(stdout);
    char line[256];
    size_t filled = 0;
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    for (;;) {
        ssize_t got = read(0, line + filled, sizeof line - 1 - filled);
        if (got == 0) return 0;
        if (got > 0) filled += got;
        line[filled] = 0;
        if (!strchr(line, '\n')) { turn_spread(5); continue; }
        unsigned long long window, packets;
        double rate, seconds;
        int group;
        filled = 0;
        if (sscanf(line, "run %llu %lf %llu %lf", &window, &rate, &packets, &seconds) == 4) run(window, rate, packets, seconds);
        else if (sscanf(line, "talk %lf %lf %d", &rate, &seconds, &group) == 3) talk(rate, seconds, group);
        else if (sscanf(line, "idle %lf", &seconds) == 1) {
            uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
            while (now_ns() < until) turn_spread(20);
            printf("{}\n");
            fflush(stdout);
        } else die("what was that?");
    }
}
