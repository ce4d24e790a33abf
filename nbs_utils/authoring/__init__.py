"""What keeps chapters true: export to the zoo, recording, checks.

For the authors of the book, not for its readers. Nothing in `nbs_utils` but the
commands imports this room; it stands on top of the others. CONTRIBUTING.md says what a
notebook says to these tools. In which order to read:

- `notebook`, `book`, `whole_book`: a chapter as a file, what its text may point at,
  and the files around it (_toc.yml, family.yml, references.bib, README.md);
- `hashing`: what counts as a change of code or of outputs;
- `exported_code`, `export`: from cells to a module of the zoo;
- `running`, `lock`, `record`, `record_all`: from code to committed outputs;
- `numbers`, `arithmetic`, `sentences`, `prose_numbers`: where each number of the prose
  comes from;
- `check` and `rules_*`: the rules, each a function that yields what it finds;
- `ruff`, `tidy`, `skeleton`, `new`: what is written for an author.
"""
