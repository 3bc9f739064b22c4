"""Has MkDocs show notebooks as pages, their pictures included."""

import json
import pathlib
from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    """Puts a Markdown page in the place of each notebook."""
    shown = []
    for file in files:
        if file.src_uri.endswith(".ipynb"):
            notebook = json.loads(pathlib.Path(file.abs_src_path).read_text(encoding="utf-8"))
            text = "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell))
            file = File.generated(config, file.src_uri, content=text)
            file.is_documentation_page = lambda: True
        shown.append(file)
    return Files(shown)


def _parts(cell):
    """The Markdown of a cell and of its outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [f"```python\n{source}\n```", *map(_output, cell["outputs"])]


def _output(output):
    data = output.get("data", {})
    if "image/png" in data:
        return f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```"
