"""The flow of ``make claims``: what is trained, what is kept, what is refused."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.dev.paper_claims.made_up import records
from tools import make_mini_data
from tools.dev import claims, learn_results
from tools.dev.learn_results import Outcome
from tools.dev.paper_claims.trials import CLAIMS, SEEDS, VARIANTS, Variant

Run = Callable[..., list[str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Function that runs the tool on made-up trainings; returns the names of what it trained."""
    parts = {'code': 'a'}
    monkeypatch.setattr(learn_results, 'digests',
                        lambda config, options=(): {**parts, 'options': str(options)})
    monkeypatch.setattr(learn_results, 'current_commit', lambda config: 'abc1234')
    made = records(dcnv4=90.0)

    def call(*words: str, rc: int = 0, stop: str = '', **changes: str) -> list[str]:
        done = []

        def fake(variant: object, seed: int, work_dir: Path, label: str) -> Outcome:
            if label == stop:
                raise SystemExit('stopped')
            done.append(label)
            return made[label].outcome
        monkeypatch.setattr(claims, 'train', fake)
        parts.update(changes)
        assert claims.main([*words, '--results', str(tmp_path / 'claims.json'),
                            '--out', str(tmp_path)]) == rc
        return done

    return call


ALL = [f'{name} seed {seed}' for seed in SEEDS for name in claims.variants_of(CLAIMS)]


def test_everything_is_trained_once_and_shown(run: Run, tmp_path: Path, capsys):
    assert run() == ALL
    out = capsys.readouterr().out
    assert f'{len(ALL)} trainings in {len(ALL)} min' in out
    assert '| DCNv4 ends above DCNv3 ' in out and '| agrees ' in out
    assert (tmp_path / 'claims.md').read_text().startswith("# The papers' claims at mini size")
    assert (tmp_path / 'images' / 'claims.png').stat().st_size > 10_000
    assert run() == []
    assert f'[{len(ALL)}/{len(ALL)}] vit-dcnv4 seed 2: nothing changed' in capsys.readouterr().out
    assert run('--again') == ALL
    assert run(code='b') == ALL


def test_a_stopped_run_goes_on_with_what_is_missing(run: Run):
    assert run(stop='attention seed 1', rc=1) == ALL[:ALL.index('attention seed 1')]
    assert run() == ALL[ALL.index('attention seed 1'):]


def test_picked_claims_train_their_variants_alone(run: Run, tmp_path: Path):
    assert run('vit', 'sharing') == [f'{name} seed {seed}' for seed in SEEDS
                                     for name in ('vit', 'vit-dcnv4', 'dcnv3', 'unshared')]
    assert not (tmp_path / 'claims.md').exists()


def test_report_trains_nothing(run: Run, tmp_path: Path, capsys):
    assert run('--report', rc=2) == []
    assert f"lacks {len(ALL)} trainings, first 'dcnv3 seed 0'" in capsys.readouterr().err
    run()
    (tmp_path / 'claims.md').unlink()
    assert run('--report', code='changed') == []
    assert (tmp_path / 'claims.md').is_file()


def test_unknown_claim_is_named(capsys):
    assert claims.main(['speed']) == 2
    assert f"got 'speed', expected any of {', '.join(CLAIMS)}" in capsys.readouterr().err


def test_costs_of_shared_and_unshared_weights():
    shared, unshared = claims.costs(VARIANTS['dcnv3']), claims.costs(VARIANTS['unshared'])
    # Eight more projections in each block: width**2 * 8, of blocks 1, 1, 2, 1.
    assert unshared['params'] - shared['params'] == 8 * (32**2 + 64**2 + 2 * 128**2 + 256**2)
    assert unshared['memory'] > 1.1 * shared['memory'] > 4 * shared['params']
    assert unshared['macs'] > shared['macs']


@pytest.mark.slow
def test_a_training_gives_curve_and_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert make_mini_data.main(['--root', str(tmp_path / 'mini'), '--scale', '0.05',
                                '--workers', '1']) == 0
    short = [f'{name}_dataloader.dataset.data_root={tmp_path / "mini" / "imagenet"}'
             for name in ('train', 'val')]
    short += ['default_hooks.logger.interval=1', 'train_cfg.max_iters=2',
              'train_cfg.val_interval=1', 'param_scheduler=[]']
    variant = VARIANTS['dcnv4-softmax']
    monkeypatch.setattr(Variant, 'options',
                        property(lambda self: (*self.changes, 'train_dataloader.batch_size=4',
                                               *short)))
    outcome = claims.train(variant, 0, tmp_path / 'work', 'tiny')
    assert outcome.iterations == 2
    assert {'top1@1', 'top1@2', 'params', 'macs', 'memory'} == set(outcome.metrics)
    assert json.dumps(outcome.metrics)
