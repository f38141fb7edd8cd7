"""The part of a page that a script makes, between two comments."""


def with_block(page: str, name: str, block: str) -> str:
    """Return the text of a page, with what is between `<!-- name -->` and its end made anew."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, _, rest = page.partition(start)
    return f"{before}{start}{block}{end}{rest.partition(end)[2]}"
