"""Connected components the naive way, as an oracle."""


def components(rows: int, edges: list[tuple[int, int]]) -> list[int]:
    """Each row's smallest connected row, by propagation."""
    labels = list(range(rows))
    for _ in range(rows):
        for first, second in edges:
            labels[first] = labels[second] = min(labels[first], labels[second])
    return labels
