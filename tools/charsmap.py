"""Builds the "precompiled_charsmap" of the normalizer Precompiled: a double array that maps byte strings to byte strings."""
import struct


def charsmap(mapping):
    """As bytes, from a dict of str to str: length of the double array, the array, the values with a NUL after each."""
    values = b""
    trie = {}
    for key in sorted(mapping):
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(values)
        values += mapping[key].encode() + b"\0"
    # A unit: 8 bits label, 1 bit "a key ends here", 1 bit "the offset counts 256s", 22 bits offset. The child by byte b of the node
    # at i is at i ^ offset ^ b; the child by 0 holds the value.
    units, used, blocks = {0: 0}, {0}, set()
    todo = [(0, trie)]
    first = 1
    while todo:
        at, node = todo.pop()
        while first in used:
            first += 1
        base = first ^ min(node)
        while base in blocks or any(base ^ b in used for b in node) or (at ^ base) >= 1 << 29 or \
                ((at ^ base) >= 1 << 21 and (at ^ base) & 0xFF):
            base += 1
        blocks.add(base)
        offset = at ^ base
        units[at] |= (offset >> 8 << 10 | 1 << 9) if offset >= 1 << 21 else offset << 10
        for b, child in node.items():
            used.add(base ^ b)
            if b:
                units[base ^ b] = b
                todo.append((base ^ b, child))
            else:
                units[at] |= 1 << 8
                units[base ^ b] = 1 << 31 | child
    array = b"".join(struct.pack("<I", units.get(i, 0)) for i in range((max(units) | 0xFF) + 1))
    return struct.pack("<I", len(array)) + array + values
