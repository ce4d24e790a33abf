"""What keeps chapters true: export to the zoo, recording, checks.

For the authors of the book, not for its readers. Nothing in `nbs_utils` imports this
package; it stands on top of the other rooms.
"""
