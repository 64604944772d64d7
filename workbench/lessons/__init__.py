"""What lessons need beside the workbench: `start` a session, `check` the answer to an exercise.

A lesson begins with `from workbench import lessons as wb` and `wb.start()`.
"""

from workbench.lessons.checking import Exercise, Verdict, check, exercises, start

__all__ = ["Exercise", "Verdict", "check", "exercises", "start"]
