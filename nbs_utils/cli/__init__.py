"""The shell's way through the house: `nbs train`, `nbs evaluate`, `nbs list`.

`main` reads what a person typed; `commands` and `evaluating` do what it says, and
`authoring_commands` what the authors of chapters say.
"""
