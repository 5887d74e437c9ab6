"""Where OpenRLHF is extended: fingerprints, the four kinds of seams, the borrowed parser, the workers' hook."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from types import SimpleNamespace

import pytest
import ray

import openrlhf_maxk
from openrlhf_maxk import installation
from openrlhf_maxk.options.maxk import ENVIRONMENT
from openrlhf_maxk.upstream import command_line as openrlhf_cli
from openrlhf_maxk.upstream import seams
from openrlhf_maxk.upstream.seams import EXTEND, MODULE, REPLACE, SEAMS, WRAP, Seam, SeamError


def test_the_installed_openrlhf_is_the_one_that_is_extended():
    seams.check(SEAMS)
    assert all(seam.sources for seam in SEAMS if not seam.cpu), "a seam without a fingerprint would break silently"


def test_the_table_reports_no_change(capsys):
    seams.main()
    printed = capsys.readouterr().out
    assert "CHANGED" not in printed
    assert all(seam.target in printed and seam.why in printed for seam in SEAMS)


def changed_file(tmp_path, module: str, old: str, new: str):
    text = seams.source_file(module).read_text()
    assert old in text
    copy = tmp_path / "changed.py"
    copy.write_text(text.replace(old, new))
    return copy


@pytest.mark.parametrize(
    ("new", "state"),
    [("class PolicyLoss(nn.Module):\n    changed = True", "changed"), ("class PPOLoss(nn.Module):", "missing")],
)
def test_a_changed_source_is_named_with_its_seam_and_why(tmp_path, monkeypatch, new, state):
    copy = changed_file(tmp_path, "openrlhf.models.loss", "class PolicyLoss(nn.Module):", new)
    real = seams.source_file
    monkeypatch.setattr(seams, "source_file", lambda m: copy if m == "openrlhf.models.loss" else real(m))
    with pytest.raises(SeamError) as caught:
        seams.check(SEAMS)
    (line,) = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert f"openrlhf.models.loss:PolicyLoss ({state})" in line
    assert "needed by openrlhf_maxk.learner.trainer:GroupLearner" in line
    assert "advantages are computed at the current policy" in line
    assert "Install openrlhf==0.11.2" in str(caught.value)


def test_a_package_that_is_not_installed_is_named():
    absent = Seam("no_such.module:Name", WRAP, "openrlhf_maxk:install", "", (("no_such.module:Name", ""),))
    with pytest.raises(SeamError, match="not installed, and needed to train: no_such\\. requirements/ has"):
        seams.check([*SEAMS, absent])


def test_a_comment_elsewhere_in_the_file_changes_no_fingerprint(tmp_path, monkeypatch):
    copy = changed_file(tmp_path, "openrlhf.models.loss", "class GPTLMLoss", "# a comment\n\n\nclass GPTLMLoss")
    before = seams.fingerprint("openrlhf.models.loss:PolicyLoss")
    monkeypatch.setattr(seams, "source_file", lambda _: copy)
    assert seams.fingerprint("openrlhf.models.loss:PolicyLoss") == before


@pytest.mark.parametrize(
    "source",
    [
        "openrlhf.models.loss:Nothing",
        "openrlhf.no_such_module:X",
        "no_such_package.module:X",
        "openrlhf.models.loss:dist",
    ],
)
def test_what_does_not_exist_has_no_fingerprint(source):
    assert seams.fingerprint(source) is None


def test_fingerprints_reach_into_classes():
    whole = seams.fingerprint("openrlhf.models.loss:PolicyLoss")
    part = seams.fingerprint("openrlhf.models.loss:PolicyLoss.forward")
    assert part is not None
    assert part != whole
    assert seams.fingerprint("openrlhf.models.loss:PolicyLoss.backward") is None


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Two modules, one to be extended by the other; apply seams and import the first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(seams, "_originals", {})
    name = f"toy_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import ray\n"
        "class A:\n    def f(self): return 'A'\n"
        "@ray.remote\nclass Actor:\n    def f(self): return 'Actor'\n"
        "value = 3\n"
    )
    (tmp_path / f"{name}_by.py").write_text(
        "class Mixin:\n    'Mine.'\n    def f(self): return 'mixin+' + super().f()\n"
        "def doubled(value): return 2 * value\n"
        "other = 'other'\n"
    )
    yield lambda target, how, by: Seam(f"{name}{target}", how, f"{name}_by{by}", "")
    for module in (name, f"{name}_by"):
        sys.modules.pop(module, None)


def module_of(seam: Seam):
    return importlib.import_module(seam.target.partition(":")[0])


@pytest.mark.parametrize("imported", [False, True], ids=["before import", "after import"])
def test_extend_puts_a_mixin_in_front(toy, imported):
    seam = toy(":A", EXTEND, ":Mixin")
    upstream = module_of(seam).A if imported else None
    seams.apply([seam])
    extended = module_of(seam).A
    assert extended().f() == "mixin+A"
    assert (extended.__name__, extended.__module__, extended.__doc__) == ("A", module_of(seam).__name__, "Mine.")
    assert upstream is None or seams.original(seam.target) is upstream


def test_extend_makes_a_ray_actor_class_of_one(toy):
    seam = toy(":Actor", EXTEND, ":Mixin")
    seams.apply([seam])
    extended = module_of(seam).Actor
    assert isinstance(extended, ray.actor.ActorClass)
    assert extended.__ray_metadata__.modified_class().f() == "mixin+Actor"


def test_applying_twice_is_applying_once(toy):
    wrap, extend = toy(":value", WRAP, ":doubled"), toy(":A", EXTEND, ":Mixin")
    for _ in range(3):
        seams.apply([wrap, extend])
    assert module_of(wrap).value == 6
    assert module_of(extend).A().f() == "mixin+A"
    assert seams.original(wrap.target) == 3


def test_replace_and_module(toy):
    replace = toy(":value", REPLACE, ":other")
    seams.apply([replace])
    assert module_of(replace).value == "other"
    module = Seam("toy_that_cannot_be_imported", MODULE, replace.by.partition(":")[0], "")
    seams.apply([module])
    try:
        assert importlib.import_module("toy_that_cannot_be_imported").other == "other"
    finally:
        del sys.modules["toy_that_cannot_be_imported"]


def test_the_cpu_seams_are_for_cpu_alone_or_for_what_is_missing(monkeypatch):
    assert seams.active(cpu=True) == list(SEAMS)
    for flash_attn, no_compiling, missing in (
        (True, None, []),
        (False, None, ["flash-attn"]),
        (True, "not found", ["nvcc"]),
        (False, "not found", ["flash-attn", "nvcc"]),
    ):
        monkeypatch.setattr(seams, "has_flash_attn", lambda found=flash_attn: found)
        monkeypatch.setattr(seams, "no_compiling", lambda found=no_compiling: found)
        assert [seam.missing for seam in seams.active(cpu=False) if seam.cpu] == missing


# Upstream's command line


def test_the_parser_knows_every_option_of_the_upstream_source():
    text = seams.source_file(openrlhf_cli.MODULE).read_text()
    wanted = {
        argument.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    assert len(wanted) > 100
    assert wanted <= openrlhf_cli.upstream_parser()._option_string_actions.keys()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import argparse\n", "no longer has an 'if __name__' block"),
        ("if __name__ == '__main__':\n    main()\n", "no longer calls parse_args"),
        (
            "import argparse\nif __name__ == '__main__':\n    p = argparse.ArgumentParser()\n    p.parse_args()\n",
            "no longer builds its parser as 'parser'",
        ),
    ],
)
def test_a_file_of_another_shape_is_reported(tmp_path, monkeypatch, source, message):
    file = tmp_path / "train.py"
    file.write_text(source)
    monkeypatch.setattr(openrlhf_cli, "source_file", lambda _: file)
    with pytest.raises(SeamError, match=message):
        openrlhf_cli.upstream_parser()


def test_a_missing_openrlhf_is_reported_with_what_to_install(monkeypatch):
    monkeypatch.setattr(openrlhf_cli, "source_file", lambda _: None)
    with pytest.raises(SeamError, match=r"not installed: pip install openrlhf==0\.11\.2"):
        openrlhf_cli.upstream_parser()


def test_upstream_runs_on_the_given_arguments_and_may_change_them(tmp_path, monkeypatch):
    (tmp_path / "toy_upstream_job.py").write_text(
        "import argparse\n"
        "if __name__ == '__main__':\n"
        "    args = argparse.ArgumentParser().parse_args()\n"
        "    args.items.append(vars(args)['a.b'])\n"
        "    open(vars(args)['file'], 'w').write(repr(args.items))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(openrlhf_cli, "MODULE", "toy_upstream_job")
    given = argparse.Namespace(**{"a.b": 4, "items": [1], "file": str(tmp_path / "out")})
    openrlhf_cli.run_upstream(given)
    assert (tmp_path / "out").read_text() == "[1, 4]"
    assert given.items == [1]


# Workers


def test_a_worker_is_told_of_the_seams_and_options_and_what_the_user_set_wins(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, '{"k": "4"}')
    given = {"env_vars": {"VLLM_LOGGING_LEVEL": "INFO", "MINE": "1"}, "working_dir": "w"}
    found = installation.add_worker_hook(given)
    assert found["worker_process_setup_hook"] == "openrlhf_maxk.installation.install_in_worker"
    assert found["working_dir"] == "w"
    assert found["env_vars"].items() >= {"VLLM_LOGGING_LEVEL": "INFO", "MINE": "1", ENVIRONMENT: '{"k": "4"}'}.items()
    assert "worker_process_setup_hook" not in given
    assert installation.add_worker_hook(None)["env_vars"][ENVIRONMENT] == '{"k": "4"}'


def test_a_users_own_setup_hook_is_not_replaced_silently():
    with pytest.raises(ValueError, match=r"worker_process_setup_hook of its own, 'mine\.hook'"):
        installation.add_worker_hook({"worker_process_setup_hook": "mine.hook"})
    once = installation.add_worker_hook({})
    assert installation.add_worker_hook(once) == once


def test_install_refuses_uv_run_whose_workers_would_not_be_told(monkeypatch):
    from ray._private.runtime_env import uv_runtime_env_hook

    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: ["uv", "run", "train.py"])
    with pytest.raises(RuntimeError, match="RAY_ENABLE_UV_RUN_RUNTIME_ENV=0"):
        openrlhf_maxk.install()


def test_install_comes_before_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(RuntimeError, match=r"before ray\.init\(\)"):
        openrlhf_maxk.install()


def test_install_refuses_an_unknown_option():
    with pytest.raises(ValueError, match=r"unknown option maxk\.kk"):
        openrlhf_maxk.install(kk=4)
