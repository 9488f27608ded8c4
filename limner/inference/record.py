"""How the guesses of a sequence fared, the latest counting most."""

from __future__ import annotations

from dataclasses import dataclass

#: What is expected of guesses before any was checked, and how many checked ones that is worth.
EXPECTED, WORTH = 0.6, 2.0
#: What is left of earlier checks after a pass with guesses, and after one without.
FADING, RESTING = 0.9, 0.98


@dataclass
class Record:
    """Counts of guesses: all of them, and those that still weigh."""

    proposed: int = 0
    """Tokens guessed."""
    accepted: int = 0
    """How many of them were right."""
    tested: float = 0.0
    right: float = 0.0

    @property
    def share(self) -> float:
        """The share of guesses that is likely to be right."""
        return (self.right + EXPECTED * WORTH) / (self.tested + WORTH)

    def learn(self, proposed: int, accepted: int) -> None:
        """So many were guessed and so many right; those after the first wrong one say nothing."""
        self.proposed += proposed
        self.accepted += accepted
        self.tested = FADING * self.tested + min(proposed, accepted + 1)
        self.right = FADING * self.right + accepted

    def rest(self) -> None:
        """Guessing did not pay. What is known fades, so that it is tried again some time."""
        self.tested, self.right = RESTING * self.tested, RESTING * self.right
