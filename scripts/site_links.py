"""A hook of mkdocs.yml: links from docs/ to the rest of the repository become plain text.

On the repository's pages they lead to a file; the site holds docs/ alone. `scripts/docs.py --check`
makes sure that the files are there.
"""

import pathlib
import re

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page, config, files) -> str:
    docs = pathlib.Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_path).parent

    def shown(link: re.Match) -> str:
        return link[0] if (folder / link[2]).resolve().is_relative_to(docs) else link[1]

    return _LINK.sub(shown, markdown)
