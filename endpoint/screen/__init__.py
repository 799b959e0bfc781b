"""The screen: what is shared, how it becomes bytes, and how those bytes become the same pixels again."""
