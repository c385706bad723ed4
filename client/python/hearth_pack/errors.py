"""How everything here fails."""


class PackError(Exception):
    """One sentence for the person at the terminal: what is wrong, and what to do."""


class UsageError(PackError):
    """The command line, or a file that it names."""


def first_line(error):
    """Of an exception of PyTorch's: their texts run over pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


def with_article(word):
    return f"{'an' if word[:1].lower() in tuple('aeiou') else 'a'} {word}"


def kind_of(value):
    """'an OrderedDict'."""
    return with_article(type(value).__name__)
