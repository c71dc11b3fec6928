"""The rules of docs/architecture.md that a program can hold: imports, budgets, names, style."""
from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

OPENMMLAB = {'mmcv', 'mmengine', 'mmpretrain', 'mmdet', 'mmseg', 'mmdet3d'}
PLUGINS = {'mmcls_custom', 'mmdet_custom', 'mmseg_custom', 'mmdet3d_custom'}
# What other plug-ins and the tools may import of a plug-in.
SHARED = {'mmcls_custom.backbones', 'mmcls_custom.necks', 'mmdet3d_custom.datasets.info_file'}
# The rooms of mmdcn; each may import those before it.
ROOMS = ('errors', 'writing', 'traits', 'checkpoints', 'data', 'layers', 'analysis', 'engine',
         'apis')
# What may be imported of OpenMMLab; general libraries are free.
TASK_RULES = {
    'mmdcn': {'mmengine', 'mmcv'},
    'mmcls_custom': {'mmengine', 'mmcv', 'mmpretrain'},
    'mmdet_custom': {'mmengine', 'mmcv', 'mmdet'},
    'mmseg_custom': {'mmengine', 'mmcv', 'mmseg', 'mmdet'},
    'mmdet3d_custom': {'mmengine', 'mmcv', 'mmdet3d', 'mmdet'},
    'tools': {'mmengine'},
}
PACKAGES = ('ops_dcn', 'mmdcn', *sorted(PLUGINS))


def python_files(*folders: str) -> list[Path]:
    """All Python files below the folders of the repository."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob('*.py'))]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, imported name or '') of every absolute import of a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ''
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).with_suffix('').parts[:-1]
            base = '.'.join(package[:len(package) - node.level + 1]) + '.' if node.level else ''
            for alias in node.names:
                yield (base + (node.module or '')).rstrip('.'), alias.name


def within(module: str, allowed: set[str]) -> bool:
    """Whether a dotted module is one of ``allowed`` or below it."""
    return any(module == name or module.startswith(name + '.') for name in allowed)


def forbidden(path: Path, module: str, name: str) -> str:
    """Why a file may not import a module; empty where it may."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    home, top, full = parts[0], module.split('.')[0], f'{module}.{name}' if name else module
    if home == 'ops_dcn':
        fine = top in {'torch', 'ops_dcn'} or top in sys.stdlib_module_names
        return '' if fine else 'ops_dcn imports torch and the standard library only'
    if home == 'configs':
        return 'configs hold strings, not imports of code'
    if top == 'ops_dcn' and module != 'ops_dcn' and home != 'tools':
        return "only ops_dcn's public names may be imported"
    info_file = within(full, {'mmdet3d_custom.datasets.info_file'})
    if home != 'mmdcn' and top in PLUGINS - {home} and (
            not within(full, SHARED) or info_file and home != 'tools'):
        return f'of another plug-in only {sorted(SHARED)} may be imported'
    if top == 'tools' and home != 'tools':
        return 'packages never import tools'
    if home == 'mmdcn' and top in PLUGINS:
        return 'mmdcn knows no task and no backbone'
    if home == top == 'mmdcn':
        return _room_order(parts, full)
    shared = home == 'mmdcn' or parts[:2] in (('mmcls_custom', 'backbones'),
                                              ('mmcls_custom', 'necks'))
    if shared and top == 'mmcv' and not within(full, {'mmcv.cnn'}):
        return 'what all tasks share imports mmcv.cnn only'
    allowed = TASK_RULES[home]
    return '' if top not in OPENMMLAB or top in allowed else f'{home} may import {sorted(allowed)}'


def _room_order(parts: tuple[str, ...], full: str) -> str:
    """Why a room of mmdcn may not import another one; empty where it may."""
    imported = full.split('.')[1:2]
    if len(parts) < 2 or parts[1] not in ROOMS or not imported or imported[0] not in ROOMS:
        return ''
    fine = ROOMS.index(imported[0]) <= ROOMS.index(parts[1])
    return '' if fine else f'of mmdcn, {parts[1]} comes before {imported[0]}'


def test_imports_follow_the_table() -> None:
    found = [f'{path.relative_to(ROOT)} imports {module} {name}: {reason}'
             for path in python_files(*PACKAGES, 'configs', 'tools')
             for module, name in imports(path) if (reason := forbidden(path, module, name))]
    assert not found


@pytest.mark.parametrize(('path', 'source', 'module', 'name'), [
    ('ops_dcn/x.py', 'numpy', 'numpy', ''),
    ('mmdet_custom/x.py', 'another plug-in', 'mmseg_custom.models', 'Head'),
    ('mmdet_custom/x.py', 'inner ops', 'ops_dcn.functional', 'dcnv4'),
    ('mmcls_custom/backbones/x.py', 'mmcv.ops', 'mmcv.ops', 'nms'),
    ('mmcls_custom/backbones/x.py', 'mmcv.ops', 'mmcv', 'ops'),
    ('mmdcn/layers/x.py', 'mmcv.ops', 'mmcv.ops', 'MultiScaleDeformableAttention'),
    ('mmdcn/engine/x.py', 'a task', 'mmdet.models', ''),
    ('mmdcn/checkpoints/x.py', 'a backbone', 'mmcls_custom.backbones', 'InternImage'),
    ('mmdcn/data/x.py', 'a later room', 'mmdcn.engine.runner', 'CheckedRunner'),
    ('mmdcn/errors.py', 'a later room', 'mmdcn', 'checkpoints'),
    ('mmdcn/engine/x.py', 'a tool', 'tools.dev', 'learn'),
    ('mmcls_custom/datasets/x.py', 'a task', 'mmdet.models', ''),
    ('mmdet_custom/x.py', 'another plug-in', 'mmcls_custom.datasets', 'checks'),
    ('mmseg_custom/x.py', 'a task', 'mmdet3d', ''),
    ('mmdet_custom/x.py', 'what tools may', 'mmdet3d_custom.datasets.info_file', 'check_info'),
    ('tools/x.py', 'a plug-in', 'mmdet3d_custom.datasets', 'checks'),
    ('tools/x.py', 'a plug-in', 'mmdet_custom', ''),
    ('tools/x.py', 'a task', 'mmseg', ''),
    ('configs/coco/x.py', 'code', 'mmdcn.engine', ''),
])
def test_table_refuses(path: str, source: str, module: str, name: str) -> None:
    assert forbidden(ROOT / path, module, name), source


@pytest.mark.parametrize(('path', 'module', 'name'), [
    ('ops_dcn/x.py', 'torch.nn', 'Module'), ('mmcls_custom/backbones/x.py', 'ops_dcn', 'DCNv4'),
    ('mmcls_custom/backbones/x.py', 'mmcv.cnn.bricks', 'DropPath'),
    ('mmdet_custom/x.py', 'mmcls_custom', 'backbones'), ('tools/x.py', 'mmdcn.engine', 'x'),
    ('mmcls_custom/backbones/x.py', 'mmpretrain.models', ''),
    ('mmcls_custom/backbones/x.py', 'mmdcn.traits', 'answers'),
    ('mmdcn/engine/x.py', 'mmdcn.data.checks', 'check_dataset'),
    ('tools/x.py', 'mmcls_custom.necks', 'InternImageConvNeck'),
    ('mmseg_custom/x.py', 'mmdet.models', ''),
    ('tools/x.py', 'mmdet3d_custom.datasets.info_file', 'create_info_files'),
])
def test_table_allows(path: str, module: str, name: str) -> None:
    assert not forbidden(ROOT / path, module, name)


def test_importing_the_shared_plug_in_is_light() -> None:
    heavy = ['mmpretrain', 'mmdet', 'mmseg', 'mmdet3d', 'mmcv.ops']
    code = f'import sys, mmcls_custom; print([name for name in {heavy} if name in sys.modules])'
    got = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert got.stdout.strip() == '[]'


def test_the_package_has_the_version_and_costs_nothing() -> None:
    code = ('import sys, mmdcn; from importlib.metadata import version; '
            'print(mmdcn.__version__ == version("mmdcn"), "torch" in sys.modules)')
    got = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert got.stdout.split() == ['True', 'False']


# Test files of no single module: what they hold goes through several.
CROSS_CUTTING = {
    'tests/test_house.py', 'tests/mmdcn/test_registry.py',
    'tests/mmdcn/checkpoints/test_hostile_files.py',
    'tests/mmdcn/layers/test_replacement.py',
    'tests/mmcls_custom/backbones/test_contract.py',
    'tests/mmdet_custom/test_batches.py', 'tests/mmdet_custom/test_plain_vit_mask_rcnn.py',
    'tests/mmseg_custom/test_label_maps.py', 'tests/mmdet3d_custom/datasets/test_geometry.py',
    'tests/mmdet3d_custom/test_end_to_end.py',
    'tests/configs/test_configs.py', 'tests/configs/test_detection_recipes.py',
    'tests/configs/test_detection_sets_recipes.py',
    'tests/configs/test_segmentation_recipes.py', 'tests/configs/test_classification_recipes.py',
    'tests/configs/test_vit_recipes.py', 'tests/configs/test_nuscenes_recipes.py',
    'tests/ops_dcn/test_cuda.py', 'tests/ops_dcn/test_cuda_emulation.py',
    'tests/ops_dcn/test_cuda_host.py', 'tests/ops_dcn/test_golden.py',
    'tests/ops_dcn/test_kernels.py', 'tests/ops_dcn/test_oracle.py',
    'tests/tools/test_checkpoint_safety.py', 'tests/tools/test_errors.py',
    'tests/tools/test_help.py', 'tests/tools/test_launch_scripts.py',
}


def test_tests_mirror_the_tree() -> None:
    modules = [path.relative_to(ROOT) for path in python_files(*PACKAGES, 'tools')
               if path.name != '__init__.py' and 'csrc' not in path.parts]
    expected = {f'tests/{path.parent}/test_{path.stem.lstrip("_")}.py' for path in modules}
    found = {str(path.relative_to(ROOT)) for path in (ROOT / 'tests').rglob('test_*.py')}
    assert not sorted(expected - found), 'modules without a test file of their own'
    assert found - expected == CROSS_CUTTING


ENTRY = re.compile(r'\s+[\w*, ]+: ([a-z])')
NAMES = ('mmengine', 'mmpretrain', 'mmdet', 'mmseg', 'timm', 'torch', 'nn.')


def lower_case_entries(docstring: str) -> Iterator[str]:
    """Entries of Args and Attributes whose description starts in lower case."""
    indent = -1
    for line in docstring.splitlines():
        depth = len(line) - len(line.lstrip())
        if line.strip() in ('Args:', 'Attributes:'):
            indent = depth + 4
        elif line.strip() and depth < indent:
            indent = -1
        elif depth == indent and (entry := ENTRY.match(line)) and not (
                line[entry.start(1):].startswith(NAMES)):
            yield line.strip()


def test_argument_descriptions_start_in_upper_case() -> None:
    found = [f'{path.relative_to(ROOT)}: {line}' for path in python_files(*PACKAGES, 'tools')
             for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
             for line in lower_case_entries(ast.get_docstring(node) or '')]
    assert not found
    assert list(lower_case_entries('Args:\n    a: What.\n    b: what.\nReturns:\n    c: x')) == [
        'b: what.']


# An option, also one whose name is put in later (f'--{name}').
OPTION = re.compile(r'(?<![\w-])--([a-z]|$)')


def options_in(source: str) -> list[str]:
    """String literals of Python code, docstrings included, that name a command line option."""
    return [node.value for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and OPTION.search(node.value)]


def test_the_library_names_no_options() -> None:
    libraries = python_files('mmdcn', *sorted(PLUGINS))
    found = {str(path.relative_to(ROOT)): options_in(path.read_text()) for path in libraries
             if path != ROOT / 'mmdcn' / 'apis' / 'cli.py'}
    assert len(found) > 40
    assert not {name: texts for name, texts in found.items() if texts}
    assert options_in((ROOT / 'mmdcn' / 'apis' / 'cli.py').read_text())


@pytest.mark.parametrize(('source', 'count'), [
    ("raise UserError('--resume is not valid')", 1), ("x = f'--{name} is not valid'", 1),
    ("x = f'{a}; leave out --family'", 1), ('def f():\n    """Start with --amp."""', 1),
    ("x = 'a -- b', 'a--b', '---', '-v', 'min_match'", 0), ("x = 1  # --resume", 0),
])
def test_options_are_found_in_strings(source: str, count: int) -> None:
    assert len(options_in(source)) == count


# Programs that do not run in the frame of all tools, and why.
WITHOUT_FRAME = {
    'tools/collect_env.py': 'reports on broken installs',
    'tools/dev/make_env.py': 'runs before anything is installed',
}


def is_program(tree: ast.AST) -> bool:
    """Whether a file does something when it is run."""
    return any(isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
               for node in ast.walk(tree))


def calls_run_tool(tree: ast.AST) -> bool:
    """Whether a file calls the frame of all tools."""
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) == 'cli.run_tool'
               for node in ast.walk(tree))


def test_one_frame_runs_every_tool() -> None:
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text())
             for path in python_files('tools')}
    programs = {name: tree for name, tree in trees.items() if is_program(tree)}
    assert len(programs) > 15
    assert {name for name, tree in programs.items() if not calls_run_tool(tree)} == set(
        WITHOUT_FRAME)


def test_a_program_without_the_frame_is_found() -> None:
    program = ast.parse("def main(): return 0\nif __name__ == '__main__':\n    main()")
    assert is_program(program) and not calls_run_tool(program)
    assert calls_run_tool(ast.parse('cli.run_tool(train, build_parser(), argv)'))
    assert not is_program(ast.parse('if True:\n    pass'))


def test_module_and_function_budgets() -> None:
    long_modules, long_functions, lengths = [], [], []
    for path in python_files(*PACKAGES, 'tools'):
        text = path.read_text()
        if text.count('\n') > 500:
            long_modules.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(size := node.end_lineno - node.lineno + 1)
                if size > 100:
                    long_functions.append(f'{path.relative_to(ROOT)}:{node.lineno} {node.name}')
    assert not long_modules
    assert not long_functions
    assert sorted(lengths)[int(0.95 * len(lengths))] <= 60


def leaf_configs() -> list[Path]:
    """Every config a user can run."""
    return [path for path in python_files('configs') if '_base_' not in path.parts]


def test_leaf_configs_hold_differences_only() -> None:
    for path in leaf_configs():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f'{path.name} has no docstring'
        code = path.read_text().split('"""', 2)[2]
        assert code.strip().count('\n') < 30, f'{path.name} is longer than 30 lines'


NAME = re.compile(
    r'(?P<model>[a-z0-9-]+(_[a-z0-9-]+)*?)_(?P<gpus>\d+)xb(?P<batch>\d+)(-(?P<schedule>[a-z0-9]+))?'
    r'_(?P<dataset>[a-z0-9-]*?[a-z0-9])(-(?P<size>\d+x\d+))?$')


@pytest.mark.parametrize('path', leaf_configs(), ids=lambda path: path.stem)
def test_config_name_says_what_the_config_holds(path: Path) -> None:
    from mmdcn.apis.config import load_config
    match = NAME.match(path.stem)
    assert match, f'{path.stem} does not follow the naming rule of docs/architecture.md'
    cfg = load_config(str(path))
    assert cfg.train_dataloader.batch_size == int(match['batch'])
    assert cfg.auto_scale_lr.base_batch_size == int(match['batch']) * int(match['gpus'])
    data = cfg.train_dataloader.dataset
    while 'data_root' not in data:  # within a wrapper
        data = data.dataset if 'dataset' in data else data.datasets[0]
    tested = cfg.val_dataloader.dataset if cfg.val_dataloader else data
    place = f'{data.data_root}{tested.get("ann_file", "")}{data.type}'.lower()
    dataset = match['dataset'].split('-')
    assert all(word.rstrip('0123456789k') in place for word in dataset), (dataset, place)
    schedule = match['schedule']
    epochs, iterations = cfg.train_cfg.get('max_epochs'), cfg.train_cfg.get('max_iters')
    length = {'x': lambda n: epochs == 12 * n, 'e': lambda n: epochs == n,
              'k': lambda n: iterations is not None and iterations // 1000 == n}
    assert length[schedule[-1]](int(schedule[:-1])), (schedule, epochs, iterations)
    if match['size']:
        sizes = {tuple(step[key]) if isinstance(step[key], list | tuple) else (step[key],) * 2
                 for step in data.pipeline
                 for key in ('crop_size', 'scale') if key in step}
        assert tuple(map(int, match['size'].split('x'))) in sizes


def test_ruff_is_content() -> None:
    got = subprocess.run([sys.executable, '-m', 'ruff', 'check', '.'], cwd=ROOT,
                         capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stdout[-3000:]


def test_no_source_is_ignored_by_git() -> None:
    # A pattern for data or build folders may hit a package of the same name.
    listed = subprocess.run(['git', 'ls-files', '--others', '--ignored', '--exclude-standard',
                             *PACKAGES, 'tools', 'tests', 'configs'], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip('not a git checkout')
    assert not [name for name in listed.stdout.splitlines() if name.endswith('.py')]


def test_nothing_from_the_workbench_in_tracked_text() -> None:
    # Absolute machine paths and registry hosts would not mean anything to a user.
    words = re.compile(r'/(root|work)/|pypi\.org|--(extra-)?index')
    listed = subprocess.run(['git', 'ls-files', '*.py', '*.md', '*.sh', '*.cpp', '*.h', '*.txt'],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip('not a git checkout')
    paths = [ROOT / name for name in listed.stdout.splitlines() if name != 'tests/test_house.py']
    assert not [path for path in paths
                if path.is_file() and words.search(path.read_text(errors='replace'))]


# Functions and methods that write a file under its own name, where a kill leaves half of it.
WRITERS = re.compile(
    r'(.*\.)?(write_text|write_bytes|savefig|imwrite|savez|savez_compressed|savetxt|save_file)$'
    r'|(json|pickle|mmengine|yaml|joblib)\.dump$|dump$|(torch|np|numpy|Image\..*)\.save$'
    r'|.*\.save$|shutil\.(copy|copy2|copyfile|move)$|os\.(rename|replace)$|.*\.(rename|touch)$')
# Who may write so: a file, perhaps with one function of it, and why.
DIRECT_WRITERS = {
    'mmdcn/writing.py': 'is how the others write',
    'mmdcn/checkpoints/writing.py': 'writes beside the file and renames, as mmdcn/writing.py does',
    'ops_dcn/csrc/cuda/cubins.py': 'runs while a wheel is built; ops_dcn imports torch alone',
    'tools/mini_data': 'writes into a folder aside that is renamed whole, see store.py',
    'tools/dev/make_env.py': 'fills .venv, where each finished step is noted in a whole file',
    'tools/dev/check_wheel.py': 'fills a temporary folder',
    'tools/dev/trainings.py': 'streams the log of a running tool',
}


def direct_writes(source: str) -> list[str]:
    """Calls that write a file other than to the name that ``whole_file`` gives."""
    found: list[str] = []

    def opens_to_write(call: ast.Call, name: str) -> bool:
        if name.rpartition('.')[2] != 'open' or name in ('os.open', 'Image.open'):
            return False
        modes = [*call.args[:2], *(word.value for word in call.keywords if word.arg == 'mode')]
        return any(isinstance(mode, ast.Constant) and isinstance(mode.value, str)
                   and re.fullmatch(r'[rbt]*[wax+][rwaxbt+]*', mode.value) for mode in modes)

    def visit(node: ast.AST, parts: frozenset[str]) -> None:
        if isinstance(node, ast.With):
            parts |= {item.optional_vars.id for item in node.items
                      if isinstance(item.optional_vars, ast.Name)
                      and ast.unparse(item.context_expr).startswith(('whole_file(',
                                                                     'writing.whole_file('))}
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            writes = WRITERS.fullmatch(name) and name not in ('writing.write_text', 'write_text')
            used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            if (writes or opens_to_write(node, name)) and not used & parts:
                found.append(ast.unparse(node))
        for child in ast.iter_child_nodes(node):
            visit(child, parts)

    visit(ast.parse(source), frozenset())
    return found


def test_files_are_written_whole() -> None:
    wrong = {}
    for path in python_files(*PACKAGES, 'tools'):
        name = str(path.relative_to(ROOT))
        excused = any(name == place or name.startswith(f'{place}/') for place in DIRECT_WRITERS)
        if not excused and (calls := direct_writes(path.read_text())):
            wrong[name] = calls
    assert not wrong, 'write through mmdcn.writing'
    assert all((ROOT / place).exists() for place in DIRECT_WRITERS)


@pytest.mark.parametrize(('source', 'count'), [
    ("open(path, 'w')", 1), ("path.open('ab')", 1), ("open(path, mode='r+')", 1),
    ("open(path)", 0), ("path.open('rb')", 0), ("os.open(folder, os.O_RDONLY)", 0),
    ('path.write_text(text)', 1), ('writing.write_text(path, text)', 0),
    ('write_text(path, text)', 0), ('json.dump(x, file)', 1), ('json.dumps(x)', 0),
    ('torch.save(x, path)', 1), ('cv2.imwrite(path, x)', 1), ('np.savez(path, x=x)', 1),
    ('figure.savefig(path)', 1), ('Image.fromarray(x).save(path)', 1), ('cfg.dump(path)', 0),
    ("text.replace('a', 'b')", 0), ('os.replace(a, b)', 1), ('dump(x, path)', 1),
    ('with whole_file(path) as part:\n    torch.save(x, part)', 0),
    ('with whole_file(path) as part:\n    np.savez(str(part), x=x)', 0),
    ('with whole_file(path) as part:\n    torch.save(x, path)', 1),
    ('with whole_file(path) as part:\n    pass\ntorch.save(x, part)', 1),
    ("with writing.whole_file(path) as part, part.open('w') as file:\n    pass", 0),
])
def test_direct_writes_are_found(source: str, count: int) -> None:
    assert len(direct_writes(source)) == count
