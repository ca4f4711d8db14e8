"""install, uninstall and status, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from suffuse import compat


def run(code: str, path: Path | None = None) -> None:
    """Runs code in a new process, with `path` in front of its module path."""
    head = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", head + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_names_and_metadata_are_found() -> None:
    run("""
        import importlib.util
        from importlib import metadata
        from suffuse import compat
        assert importlib.util.find_spec("mamba_ssm") is None
        compat.install(["mamba_ssm", "causal_conv1d"])
        spec = importlib.util.find_spec("mamba_ssm")
        assert spec.name == "mamba_ssm" and spec.submodule_search_locations
        assert metadata.version("mamba_ssm") == metadata.version("mamba-ssm") == "2.3.2.post1"
        assert metadata.version("causal-conv1d") == "1.6.1"
        assert "causal-conv1d" in metadata.packages_distributions()["causal_conv1d"]
        assert metadata.metadata("mamba-ssm")["Name"] == "mamba-ssm"
        assert list(metadata.distribution("mamba-ssm").files or []) == []
    """)


def test_modules_are_ours_under_both_names() -> None:
    run("""
        from suffuse import compat
        compat.install("mamba_ssm")
        compat.install(["causal_conv1d"])
        import mamba_ssm
        from mamba_ssm import Mamba, Mamba2, mamba_inner_fn, selective_scan_fn
        from mamba_ssm.modules.mamba2 import Mamba2 as again
        from mamba_ssm.modules.mamba_simple import Mamba as same
        from mamba_ssm.modules.ssd_minimal import ssd_minimal_discrete
        from mamba_ssm.ops.selective_scan_interface import mamba_inner_ref, selective_scan_ref
        from mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn
        from mamba_ssm.ops.triton.layernorm_gated import RMSNorm as Gated, rmsnorm_fn
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
        from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined
        from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
        from causal_conv1d.causal_conv1d_interface import causal_conv1d_ref
        from causal_conv1d.causal_conv1d_varlen import causal_conv1d_varlen_states
        import suffuse.compat.mamba_ssm.ops.selective_scan_interface as ours
        assert again is Mamba2 and same is Mamba
        assert mamba_ssm.ops.selective_scan_interface is ours
        assert mamba_ssm.ops.triton.selective_state_update.selective_state_update
        try:
            import mamba_ssm.nothing
        except ModuleNotFoundError as error:
            assert error.name == "mamba_ssm.nothing"
        else:
            raise AssertionError
    """)


def test_install_twice_and_undo() -> None:
    run("""
        import sys
        from importlib import metadata
        from suffuse import compat
        before = list(sys.meta_path)
        compat.install(["mamba_ssm", "causal_conv1d"])
        import mamba_ssm.ops, causal_conv1d
        compat.install(["mamba_ssm"])
        assert len(sys.meta_path) == len(before) + 1
        assert compat.status()["mamba_ssm"] == {
            "installed": None, "enabled": True, "changes": ["import mamba_ssm: suffuse.compat.mamba_ssm"]
        }
        compat.uninstall("mamba_ssm")
        assert not any(name.split(".")[0] == "mamba_ssm" for name in sys.modules)
        assert sys.modules["causal_conv1d"] is causal_conv1d
        compat.uninstall()
        compat.uninstall()
        assert sys.meta_path == before and "causal_conv1d" not in sys.modules
        assert not compat.status()["causal_conv1d"]["enabled"]
        try:
            import mamba_ssm.ops
        except ModuleNotFoundError:
            pass
        else:
            raise AssertionError
        try:
            metadata.version("mamba-ssm")
        except metadata.PackageNotFoundError:
            pass
        else:
            raise AssertionError
        compat.install(["mamba_ssm"])
        import mamba_ssm.ops
    """)


def test_a_real_package_is_not_shadowed(tmp_path: Path) -> None:
    (tmp_path / "causal_conv1d").mkdir()
    (tmp_path / "causal_conv1d" / "__init__.py").write_text("real = True")
    info = tmp_path / "causal_conv1d-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: causal-conv1d\nVersion: 9.9\n")
    run(
        """
        import importlib.util, sys
        from suffuse import compat
        try:
            compat.install(["mamba_ssm", "causal_conv1d"])
        except RuntimeError as error:
            assert "causal_conv1d 9.9 is installed" in str(error), error
        else:
            raise AssertionError
        assert importlib.util.find_spec("mamba_ssm") is None  # all or nothing
        assert compat.status()["causal_conv1d"] == {
            "installed": "9.9", "enabled": False, "changes": []
        }
        compat.uninstall()
        import causal_conv1d
        assert causal_conv1d.real
        compat.uninstall()
        assert sys.modules["causal_conv1d"] is causal_conv1d
        """,
        tmp_path,
    )


def test_models_imported_before_are_named() -> None:
    run("""
        import warnings
        import transformers.models.mamba.modeling_mamba
        from suffuse import compat
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            compat.install(["mamba_ssm"])
        assert "transformers.models.mamba.modeling_mamba" in str(seen[0].message)
        assert seen[0].filename == "<string>"
    """)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="name is 'torch', expected some of 'causal_conv1d'"):
        compat.install(["mamba_ssm", "torch"])
    with pytest.raises(ValueError, match=r"uninstall: name is 'x'"):
        compat.uninstall("x")
    assert not compat.status()["mamba_ssm"]["enabled"]
