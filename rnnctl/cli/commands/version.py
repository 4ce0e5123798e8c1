"""``rnnctl version``."""

from rnnctl.cli.options.command import with_exit_codes
from rnnctl.cli.pages import Page, with_page
from rnnctl.cli.streams import write_stdout
from rnnctl.cli.versions import places


@with_page(Page("scripts", ("rnnctl version", "rnnctl --version")))
@with_exit_codes
def version() -> None:
    """The versions of rnnctl, Python and torch, and where each is installed."""
    found = places()
    names, versions = max(map(len, found)), max(len(each.version) for each in found.values())
    lines = (f"{name:{names}}  {each.version:{versions}}  {each.place}" for name, each in found.items())
    write_stdout("\n".join(lines) + "\n")
