"""What the scripts that write tables share: the code points, and how a table is written."""
SURROGATES = range(0xD800, 0xE000)
POINTS = [c for c in range(0x110000) if c not in SURROGATES]


def ranges(points):
    found = []
    for c in sorted(points):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def emit(comment, declaration, items):
    print(f"\n// {comment}\n{declaration} = {{")
    line = " "
    for item in items:
        if len(line) + len(item) + 2 > 130:
            print(line)
            line = " "
        line += f" {item},"
    print(line + "\n};")


def emit_ranges(comment, name, points):
    emit(comment, f"constexpr CodeRange {name}[]", [f"{{0x{a:X},0x{b:X}}}" for a, b in ranges(points)])
