"""The journal of a search: every trial as a line of a file that several processes and machines may share."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nexttoken.commands.search.space import Space
from nexttoken.commands.sweep import Job
from nexttoken.errors import UserError
from nexttoken.runs.folder import describe_differences
from nexttoken.runs.lock import FoldLock, waiting_lock

JOURNAL = "journal.log"
DRAWS = 10  # at most, until one is new: a trial with known settings tells nothing


@dataclass(frozen=True)
class Journal:
    """The trials of a search. What the sampler proposes follows from the finished trials and `seed` alone.

    So a search that was killed proposes the same again.
    """

    folder: Path
    study: Any  # of Optuna
    storage: Any
    space: Space
    default: Mapping[str, Any]  # the default's parameters; {} where they are outside the space
    seed: int
    startup: int

    @property
    def trials(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    @contextmanager
    def claimed(self, number: int) -> Iterator[Any | None]:
        """The next trial, kept from other processes: one that a process left unfinished, else a new one.

        None where there are `number` trials, of which other processes may still run some.
        """
        with ExitStack() as stack:
            yield self._unfinished(stack) or self._new(stack, number)

    def running_elsewhere(self) -> list[str]:
        """A line for each trial that another process runs, with its process."""
        return [line for trial in self._running() if (line := self._refusal(trial.number))]

    def report(self, trial: Any, step: int, value: float) -> bool:
        """Note the mean after a fold; return True where the trial is worse there than half of the finished ones."""
        self.storage.set_trial_intermediate_value(trial._trial_id, step, value)
        return self.study.pruner.prune(self.study, self.trials[trial.number])

    def finish(self, trial: Any, state: str, jobs: list[Job], value: float | None = None) -> None:
        """End a trial: `state` is complete, pruned or fail."""
        from optuna.trial import TrialState

        self.storage.set_trial_user_attr(trial._trial_id, "jobs", [asdict(job) for job in jobs])
        self.study.tell(trial.number, value, state=TrialState[state.upper()])

    def trial_seconds(self) -> float:
        """The median time of the finished trials: a killed one has the time until it was continued, too."""
        return median(trial.duration.total_seconds() for trial in self.trials if trial.state.is_finished())

    def _running(self) -> list[Any]:
        return [trial for trial in self.trials if not trial.state.is_finished()]

    def _lock(self, number: int) -> FoldLock:
        return FoldLock(self.folder / f"trial{number}")

    def _refusal(self, number: int) -> str:
        try:
            self._lock(number).refuse_held()
        except UserError as error:
            return str(error)
        return ""

    def _unfinished(self, stack: ExitStack) -> Any | None:
        for trial in self._running():
            with ExitStack() as held:
                try:
                    held.enter_context(self._lock(trial.number).held())
                except UserError:
                    continue
                if not self.trials[trial.number].state.is_finished():  # by another process, meanwhile
                    stack.push(held.pop_all())
                    return trial
        return None

    def _new(self, stack: ExitStack, number: int) -> Any | None:
        from optuna.trial import TrialState, create_trial

        with waiting_lock(self.folder / JOURNAL):
            if (place := len(self.trials)) >= number:
                return None
            stack.enter_context(self._lock(place).held())
            params = self._proposed(place) if place else dict(self.default)
            distributions = {key: self.space.distributions[key] for key in params}
            self.study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
        return self.trials[place]

    def _proposed(self, place: int) -> dict[str, Any]:
        """Parameters for the trial of this number, drawn in memory: one line of the journal then has them all."""
        import optuna

        known = [trial for trial in self.trials if trial.params]  # the default may lie outside
        params: dict[str, Any] = {}
        for draw in range(DRAWS):
            seed = int(np.random.SeedSequence([self.seed, place, draw]).generate_state(1)[0])
            num_random = len(known) + 1 if draw else self.startup  # what guides the draws would draw the same again
            sampler = optuna.samplers.TPESampler(n_startup_trials=num_random, seed=seed)
            copy: Any = optuna.create_study(direction=self.study.direction, sampler=sampler)
            copy.add_trials(known)
            params = self.space.rounded(copy.ask(self.space.distributions).params)
            if params not in [trial.params for trial in known]:
                break
        return params


def direction_of(maximizes: bool) -> Any:
    return "maximize" if maximizes else "minimize"


def open_journal(
    folder: Path, space: Space, default: Mapping[str, Any], maximizes: bool, described: Mapping[str, Any], startup: int
) -> Journal:
    """The journal in `folder`, new or continued; `described` are the settings on which its trials depend.

    Raises UserError where it was begun with other settings, or its file is damaged.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder.resolve() / JOURNAL)
    try:
        storage = JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=startup)
        study = optuna.create_study(
            storage=storage, study_name="search", direction=direction_of(maximizes), pruner=pruner, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError) as error:
        what = f"{path} is no journal of a search, or damaged ({str(error).splitlines()[0]})"
        raise UserError(f"{what}; remove its last line, or choose another name=...") from None
    if "settings" not in study.user_attrs:
        study.set_user_attr("settings", dict(described))
    elif changed := describe_differences(study.user_attrs["settings"], described):
        raise UserError(f"{folder} is a search with other settings ({changed}); choose another name=...")
    return Journal(folder, study, storage, space, default, int(described["seed"]), startup)
