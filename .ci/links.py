"""A hook of the book: the links of the pages beside it, which are read in the repository, lead somewhere as well."""

import re
from pathlib import Path

from markdown.extensions.toc import slugify
from mkdocs.exceptions import Abort

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


def anchors(page):
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {slugify(heading.replace("`", ""), "-") for heading in headings}


def on_pre_build(config):
    root = Path(config.config_file_path).parent
    pages = [*root.glob("*.md"), *root.glob("sandbox/**/*.md")]
    broken = []
    for page in pages:
        text = CODE.sub("", FENCE.sub("", page.read_text()))
        for path, anchor in LINK.findall(text):
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(root)}: '{path}' is not there")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                broken.append(f"{page.relative_to(root)}: '{path}' has no heading '#{anchor}'")
    if broken:
        raise Abort("links that lead nowhere:\n" + "\n".join(broken))
