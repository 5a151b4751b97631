"""What the story says, each sentence with the condition that makes it true and the evidence it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence that was printed, whether it is true, and the numbers that decide it."""

    sentence: str
    holds: bool
    evidence: str


@dataclass
class Claims:
    """Collects claims and prints each when it is made."""

    console: Console
    made: list[Claim] = field(default_factory=list)

    def check(self, sentence: str, holds: bool, evidence: str) -> bool:  # noqa: FBT001 - the condition is the argument
        """Print the sentence with its verdict and evidence, remember it, and return the verdict."""
        claim = Claim(sentence, bool(holds), evidence)
        self.made.append(claim)
        sign = "[bold green]✓[/]" if claim.holds else "[bold red]✗[/]"
        self.console.print(f"  {sign} {escape(sentence)} [dim]({escape(evidence)})[/]", soft_wrap=True)
        return claim.holds

    @property
    def failed(self) -> list[Claim]:
        """The claims that are not true, in the order made."""
        return [claim for claim in self.made if not claim.holds]

    def summarise(self) -> int:
        """Print how many hold and which do not; the exit code is 0 only when there are claims and all hold."""
        if not self.made:
            self.console.print("[bold red]no claim was computed[/]")
            return 1
        if not self.failed:
            self.console.print(f"[bold green]all {len(self.made)} claims were computed and are true[/]")
            return 0
        self.console.print(f"[bold red]{len(self.failed)} of {len(self.made)} claims are not true:[/]")
        for claim in self.failed:
            self.console.print(f"  [red]✗[/] {escape(claim.sentence)} ({escape(claim.evidence)})")
        return 1
