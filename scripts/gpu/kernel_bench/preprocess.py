"""As much of C's preprocessor as the kernels' files need to show their signatures."""
import re


def split(arguments):
    """Splits at the commas that are not in parentheses."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


class Macros:
    """Definitions by name: (parameters or None, body)."""

    def __init__(self, defines=()):
        self.known = {}
        for define in defines:
            name, _, value = define.partition("=")
            self.known[name] = (None, value or "1")

    def expand(self, text):
        if not self.known:
            return text
        names, result, at = re.compile(r"\b(" + "|".join(self.known) + r")\b"), "", 0
        while found := names.search(text, at):
            result += text[at : found.start()]
            at = found.end()
            parameters, body = self.known[found[1]]
            if parameters is not None:
                opened = re.compile(r"\s*\(").match(text, at)
                if not opened:
                    result += found[1]
                    continue
                at = closing(text, opened.end())
                body = self.filled(parameters, body, split(text[opened.end() : at - 1]))
            result += self.expand(body)
        return result + text[at:]

    def filled(self, parameters, body, arguments):
        values = dict(zip(parameters, arguments))
        if parameters and parameters[-1] == "...":
            values["__VA_ARGS__"] = ", ".join(arguments[len(parameters) - 1 :])
            values.pop("...")
        name = r"\b(" + "|".join(values) + r")\b"
        # Beside ##, an argument is taken as it is written.
        body = re.sub(rf"##\s*{name}", lambda found: "##" + values[found[1]], body)
        body = re.sub(rf"{name}(?=\s*##)", lambda found: values[found[1]], body)
        # But for those inside quotes.
        body = re.sub(rf'"[^"]*"|{name}', lambda found: self.expand(values[found[1]]) if found[1] else found[0], body)
        return re.sub(r"\s*##\s*", "", body)


def closing(text, at):
    """The place after the parenthesis that closes the one before `at`."""
    depth = 1
    while depth:
        depth += (text[at] == "(") - (text[at] == ")")
        at += 1
    return at


def preprocessed(text, defines=()):
    """Returns the text with its macros expanded, without comments and directives, and the macros."""
    macros, lines, taken = Macros(defines), [], [True]
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S).replace("\\\n", " ")
    for line in text.split("\n"):
        directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        if not directive:
            lines += [line] if all(taken) else []
            continue
        kind, rest = directive.groups()
        if kind in ("ifdef", "ifndef"):
            taken.append((rest.split()[0] in macros.known) == (kind == "ifdef"))
        elif kind == "if":
            taken.append(True)
        elif kind == "else":
            taken[-1] = not taken[-1]
        elif kind == "endif":
            taken.pop()
        elif kind == "define" and all(taken):
            name, parameters, body = re.match(r"(\w+)(\([^)]*\))?\s*(.*)", rest).groups()
            macros.known[name] = (split(parameters[1:-1]) if parameters else None, body.strip())
    return macros.expand("\n".join(lines)), macros
