"""What keeps chapters true: export to the zoo, recording, checks.

For the authors of the book, not for its readers. Nothing in `nbs_utils` imports this
package; it stands on top of the other rooms.

What a chapter says to these tools:

- Notebook metadata `nbs`: `kind` ("model", "foundation" or "comparison") and, where
  cells are exported, `zoo`, the module that they become. `nbs record` adds `recorded`
  (tier, device, date, seconds, versions) and `code_sha256`.
- A level-2 heading opens a part of the chapter. Its words are free; the line below it
  names the part: `<!-- part: why -->`. The names, in order, are in `book.PARTS`; the
  first, "glance", is the page's title and has no line.
- Cell tags: `setup`, `hide-input` (the second cell), `export` (to the zoo), `solution`,
  `nbval-check-output` (same output in a quick run and in a full one; tests compare it).
- A figure's alt text, caption and name stand in its cell's metadata: `mystnb.image.alt`,
  `mystnb.figure.caption` and `mystnb.figure.name` (which begins with `fig-`).
"""
