"""Whether each method's characteristic step is tested: remove one step at a time and run the tests.

    python benchmarks/mutations.py [WORD ...] [--log FILE]

WORD selects mutations by part of their name. Prints one line each, "caught" or "MISSED", and exits
with 1 if one is missed. With ``--log`` results are kept, and those of an earlier call are not run
again; exits with 2 if tests fail without any mutation. Not part of the test suite: each mutation is a run of the tests of its method.
"""

import argparse
import contextlib
import importlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED = ("unlearn", "tests", "conf", "hydra_plugins", "pyproject.toml")
LIBRARIES = ("torch", "torchvision", "lightning.pytorch", "sklearn.linear_model", "pandas", "hydra")
"""Imported once, before forks."""
CAUGHT, MISSED, BROKEN = "caught", "MISSED", "BROKEN: the step is not in the file"


class Mutation(NamedTuple):
    """A step of a method and what takes its place.

    Attributes:
        name: Method and step.
        file: Below ``unlearn/``, without suffix.
        old: Source text of the step; the first occurrence is replaced.
        new: Its replacement.
        tests: Test file below ``tests/``, without suffix.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


PRUNING, ADVERSARIES = "methods/test_norm_pruning", "methods/test_trusted_adversaries"
TRUSTED, ROBUST = "methods/test_trusted_training", "methods/test_robust_training"
PARTS = "methods/components"

MUTATIONS = [
    Mutation("anp: no ascent", "methods/anp", "n.detach() + self.epsilon * s.sign()", "n.detach()", PRUNING),
    Mutation("anp: descent", "methods/anp", "+ self.epsilon * s.sign()", "- self.epsilon * s.sign()", PRUNING),
    Mutation("anp: no projection", "methods/anp", "if self.project:", "if False:", PRUNING),
    Mutation("anp: masks not clipped", f"{PARTS}/norm_scales", "mask.clamp_(0, 1)", "pass", PRUNING),
    Mutation("anp: plain loss alone", "methods/anp", "return self.alpha * plain + (1 - self.alpha) * ", "return plain + 0 * ", PRUNING),
    Mutation("anp: nothing pruned", f"{PARTS}/norm_scales", "weight[gone] = 0", "weight[gone] *= 1", PRUNING),
    Mutation("anp: shift pruned too", f"{PARTS}/norm_scales", "    count += int(gone.sum())", "    count += int(gone.sum()); model.get_submodule(name).bias[gone] = 0", PRUNING),
    Mutation("anp: scale noise unused", f"{PARTS}/norm_scales", "self.masks[i] + scale_noise[i]", "self.masks[i] + 0 * scale_noise[i]", PRUNING),
    Mutation("rnp: loss not negated", "methods/rnp", "return -F.cross_entropy", "return F.cross_entropy", PRUNING),
    Mutation("rnp: never recovers", "methods/rnp", "self.recovering = accuracy <= self.gamma or self.passes >= self.epochs", "self.recovering = self.passes >= self.epochs", PRUNING),
    Mutation("rnp: recovers without masks", "methods/rnp", "logits = self.masks.compute_logits(self.model, image)\n", "logits = forward(image)\n", PRUNING),
    Mutation("cuts: batch norm moves", "methods/cuts", "and name not in untouched", "", "methods/test_cuts"),
    Mutation("cuts: added, not subtracted", "methods/cuts", "self.original[n].to(c.device) - factor * c", "self.original[n].to(c.device) + factor * c", "methods/test_cuts"),
    Mutation("cuts: ascends", "methods/cuts", "return F.cross_entropy(forward(forget.image), forget.label)", "return -F.cross_entropy(forward(forget.image), forget.label)", "methods/test_cuts"),
    Mutation("cuts: largest factor", "methods/cuts", "<= self.gamma:", "<= -1:", "methods/test_cuts"),
    Mutation("cuts: chance not subtracted", f"{PARTS}/neighbour_score", "(agreement - chance) / (1 - chance)", "agreement", "methods/test_cuts"),
    Mutation("cuts: lost classes free", f"{PARTS}/neighbour_score", "return score - max(0, required - supported) / required", "return score", "methods/test_cuts"),
    Mutation("fine_pruning: most active first", "methods/fine_pruning", ".argsort(stable=True)", ".argsort(stable=True, descending=True)", TRUSTED),
    Mutation("fine_pruning: last state kept", "methods/fine_pruning", "weight.copy_(kept)\n", "pass\n", TRUSTED),
    Mutation("fine_pruning: zeros move", "methods/fine_pruning", "may_move[:, pruned] = False", "pass", TRUSTED),
    Mutation("fst: head not drawn anew", "methods/fst", "part.copy_((2 * drawn - 1) * bound)", "pass", TRUSTED),
    Mutation("fst: norm not kept", "methods/fst", "        weight.mul_(self.held[\"norm\"].to(weight.device) / weight.norm())", "        pass", TRUSTED),
    Mutation("fst: no push away", "methods/fst", "+ self.alpha * near", "+ 0 * near", TRUSTED),
    Mutation("fst: pulled towards", "methods/fst", "+ self.alpha * near", "- self.alpha * near", TRUSTED),
    Mutation("ft_sam: no ascent", "methods/ft_sam", "n: w + e for", "n: w + 0 * e for", ADVERSARIES),
    Mutation("ft_sam: not relative to weights", "methods/ft_sam", "scaled = [w.detach().abs() * g for", "scaled = [g for", ADVERSARIES),
    Mutation("ft_sam: a norm per tensor", "methods/ft_sam", "[radius * w.detach().abs() * s / norm for", "[radius * w.detach().abs() * s / s.norm() for", ADVERSARIES),
    Mutation("ft_sam: second pass moves batch norm", "methods/ft_sam", "n: b.clone() for n, b in", "n: b for n, b in", ADVERSARIES),
    Mutation("ft_sam: smoothing as torch's", "methods/ft_sam", "self.label_smoothing * k / max(1, k - 1)", "self.label_smoothing", ADVERSARIES),
    Mutation("i_bau: no implicit gradient", "methods/i_bau", "return outer + response - response.detach()", "return outer", ADVERSARIES),
    Mutation("i_bau: one iteration", "methods/i_bau", "for _ in range(iterations):", "for _ in range(1):", ADVERSARIES),
    Mutation("i_bau: no perturbation", "methods/i_bau", "delta.detach() - self.inner_lr * slope", "delta.detach() - 0 * slope", ADVERSARIES),
    Mutation("i_bau: not projected", "methods/i_bau", "return delta * (self.max_norm / delta.norm().clamp_min(1e-12)).clamp(max=1)", "return delta", ADVERSARIES),
    Mutation("i_bau: all perturbed", "methods/i_bau", "[:count]] = 1", "] = 1", ADVERSARIES),
    Mutation("i_bau: train mode", "methods/i_bau", "self.model.eval()\n        device", "device", ADVERSARIES),
    Mutation("sau: outside of the box", "methods/sau", ".detach().clamp(-self.radius, self.radius)", ".detach()", ADVERSARIES),
    Mutation("sau: reference moves", "methods/sau", "self.reference = frozen_copy(self.model)", "self.reference = self.model", ADVERSARIES),
    Mutation("sau: no shared loss", "methods/sau", "self.shared_weight * shared_loss(", "0 * shared_loss(", ADVERSARIES),
    Mutation("sau: all images count", "methods/sau", "return -(rest * active).sum()", "return -rest.sum()", ADVERSARIES),
    Mutation("nad: maps not scaled", f"{PARTS}/attention_maps", "return flat / (flat.norm(dim=1, keepdim=True) + TINY)", "return flat", TRUSTED),
    Mutation("nad: teacher gets a gradient", "methods/nad", "compute_attention_map(t.detach())", "compute_attention_map(t)", TRUSTED),
    Mutation("nad: student starts from the teacher", "methods/nad", "self.model.load_state_dict(self.original)", "pass", TRUSTED),
    Mutation("nad: no attention loss", "methods/nad", "return loss + attention_loss(own, wanted, self.betas[-len(own) :])", "return loss", TRUSTED),
    Mutation("sap: weights stay", f"{PARTS}/input_directions", "weight.copy_(moved.reshape", "weight.copy_(weight + 0 * moved.reshape", "methods/test_sap"),
    Mutation("sap: scale ignored", f"{PARTS}/input_directions", "alpha * share / ((alpha - 1) * share + 1)", "share / share.amax(-1, keepdim=True)", "methods/test_sap"),
    Mutation("sap: highest losses", "methods/sap", "loss[own].argsort(stable=True)", "loss[own].argsort(stable=True, descending=True)", "methods/test_sap"),
    Mutation("elr: targets stay", "methods/elr", "self.momentum * old + (1 - self.momentum) * now", "old", ROBUST),
    Mutation("elr: agreement punished", "methods/elr", "+ self.weight * (1 - agreement)", "- self.weight * (1 - agreement)", ROBUST),
    Mutation("co_teaching: own selection", "methods/co_teaching", "losses[0][theirs].mean() + losses[1][mine].mean()", "losses[0][mine].mean() + losses[1][theirs].mean()", ROBUST),
    Mutation("co_teaching: largest losses", "methods/co_teaching", "loss.detach().argsort(stable=True)", "loss.detach().argsort(stable=True, descending=True)", ROBUST),
    Mutation("co_teaching: no ramp", "methods/co_teaching", "min(epoch / ramp_epochs, 1.0)", "1.0", ROBUST),
    Mutation("divide_mix: own split", "methods/divide_mix", "enumerate((self.peer, model))", "enumerate((model, self.peer))", ROBUST),
    Mutation("divide_mix: higher component", "methods/divide_mix", "int(np.argmin(mixture.means_))", "int(np.argmax(mixture.means_))", ROBUST),
    Mutation("divide_mix: not sharpened", "methods/divide_mix", "power = probability ** (1 / temperature)", "power = probability", ROBUST),
    Mutation("divide_mix: empty split goes on", "methods/divide_mix", "if labelled in (0, len(found)):", "if False:", ROBUST),
    Mutation("ft_trusted: validation images too", f"{PARTS}/trusted_training", "fit, validation, apart = request.split_trusted()", "fit, validation, apart = request.trusted, request.split_trusted()[1], True", TRUSTED),
    Mutation("scan: no trusted side", "scoring/detection/scan", "if subject.trusted is not None else high", "if False else high", "scoring/detection/test_query_and_groups"),
    Mutation("scan: covariance unused", "scoring/detection/scan", "direction = precision @ (means[0] - means[1])", "direction = means[0] - means[1]", "scoring/detection/test_query_and_groups"),
    Mutation("scan: scores not standardised", "scoring/detection/scan", "return (score - middle) / spread", "return score", "scoring/detection/test_query_and_groups"),
    Mutation("delta_influence: no difference", "scoring/detection/delta_influence", "(other - own < 0)", "(other < 0)", "scoring/detection/test_query_and_groups"),
    Mutation("delta_influence: sign", "scoring/detection/delta_influence", "(other - own < 0)", "(other - own > 0)", "scoring/detection/test_query_and_groups"),
    Mutation("delta_influence: margin without own class", "scoring/detection/delta_influence", "margin[rows, label] = -1", "margin[rows, label] = 0", "scoring/detection/test_query_and_groups"),
]  # fmt: skip


def run_tests(folder: Path, tests: str) -> bool:
    """Return whether a test file passes in a copy; run by a process that is forked here.

    The parent has imported the libraries but not the package, which the child imports from the copy.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    import pytest

    os.chdir(folder)
    sys.path[:0] = [str(folder)]
    code = 3
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = int(pytest.main(
                ["-q", "-x", "-p", "no:cacheprovider", "-n", "0", "-m", "not slow and not gpu",
                 f"tests/{tests}.py"]
            ))  # fmt: skip
    finally:
        os._exit(code)


def try_mutation(folder: Path, mutation: Mutation) -> str:
    """Return the result of a mutation in a copy of the repository, which is restored afterwards."""
    path = folder / "unlearn" / f"{mutation.file}.py"
    before = path.read_text()
    if mutation.old not in before:
        return BROKEN
    path.write_text(before.replace(mutation.old, mutation.new, 1))
    try:
        return MISSED if run_tests(folder, mutation.tests) else CAUGHT
    finally:
        path.write_text(before)


def read_log(path: Path | None) -> dict[str, str]:
    """Return results by name that an earlier call kept."""
    if path is None or not path.exists():
        return {}
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return {name: result for result, name in lines}


def main() -> int:
    """Run the chosen mutations; return 1 if one is missed, else 0."""
    parser = argparse.ArgumentParser(
        description="Remove one step of a method at a time and run its tests."
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    for library in LIBRARIES:
        importlib.import_module(library)

    known = read_log(arguments.log)
    chosen = [m for m in MUTATIONS if any(w in m.name for w in arguments.words or ("",))]
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            source = REPOSITORY / part
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / part)
        for tests in dict.fromkeys(m.tests for m in chosen if m.name not in known):
            if not run_tests(folder, tests):
                print(f"tests/{tests}.py fails without a mutation", file=sys.stderr)
                return 2
        for mutation in chosen:
            result = known.get(mutation.name) or try_mutation(folder, mutation)
            print(f"{result}\t{mutation.name}", flush=True)
            if arguments.log is not None and mutation.name not in known:
                with arguments.log.open("a") as file:
                    file.write(f"{result}\t{mutation.name}\n")
            results.append(result)
    print(f"{results.count(CAUGHT)} of {len(results)} caught")
    return int(set(results) != {CAUGHT})


if __name__ == "__main__":
    sys.exit(main())
