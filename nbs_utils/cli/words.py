"""The words of the shell for what the library says in Python's."""

import re

# What an error of the library advises, and how a person types it in the shell.
_WORDS = (
    (r"pass resume=False to start again", "give --fresh to start again"),
    (r'pass on_bad_image="skip"', "give --on-bad-image skip"),
    (r"on_bad_image='?(skip|raise)'?", r"--on-bad-image \1"),
    (r", or folder=None to keep nothing on disk", ""),
    (r"recipe\.replace\((\w+)=([^)]*)\)", r"--set \1=\2"),
    (r'fit\(on_out_of_memory="halve"\)', "--on-out-of-memory halve"),
    (r"on_out_of_memory='halve'", "--on-out-of-memory halve"),
    (r"Recipe\.stretched\((\d+)\), or fit\(epochs=\d+\),", r"--epochs \1"),
    (r"fit\(folder=\.\.\.\)", "--folder"),
    (r"Build it with num_classes=(\d+)", r"Give --model-set num_classes=\1"),
    (r"load the data with a val_size above 0", "give a --val-size above 0"),
    (r"NBS_DEVICE is", "--device (or NBS_DEVICE) is"),
    (r", or unset it", ", or leave it out"),
    (r"image_size is", "--image-size is"),
    (r"batch_size is", "--batch-size is"),
    (r"\bval_size=([\w.]+)", r"--val-size \1"),
    (r"\bval_size is", "--val-size is"),
    (r"\blimit=(\w+)", r"--limit \1"),
    (r"\blimit is", "--limit is"),
    (r"\bbatch_size=(\d+)", r"--batch-size \1"),
    (r"\b(accumulate|precision|lr|warmup_epochs|clip_norm)=([\w.']+)", r"--set \1=\2"),
    (r"nbs\.load\(folder, network=\.\.\.\)", "nbs.load(folder, network=...) in Python"),
    (r"Pass path= as it was downloaded", "Give --weights the path of its copy"),
    (r"or pass path= to a copy", "or give --weights the path of a copy"),
)


def in_shell_words(sentence: str) -> str:
    """Return an error of the library as the shell says it.

    Example: "pass resume=False to start again" becomes "give --fresh to start again".
    """
    for pattern, words in _WORDS:
        sentence = re.sub(pattern, words, sentence)
    return sentence
