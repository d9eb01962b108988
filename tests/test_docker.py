"""The images as far as they can be checked without a Docker engine: Dockerfiles are parsed, their scripts are run."""

from __future__ import annotations

import http.server
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from appzoo.cli.reader import JobReader, read_settings
from appzoo.cli.serving import OWN_FLAGS
from appzoo.cli.text import VERBS
from easytransfer.config.flags import split_flags
from easytransfer.serving.settings import ServingConfig

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SCRIPTS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.is_file()
    and not {".git", ".venv", "build", "node_modules"} & set(path.relative_to(ROOT).parts)
    and path.read_bytes()[:20].startswith((b"#!/bin/sh", b"#!/bin/bash"))
)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns (keyword, arguments) of every instruction, comments and line continuations removed."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Returns the instructions of every stage that no other one goes on or copies from: the images."""
    found = instructions(path)
    starts = [i for i, (keyword, _) in enumerate(found) if keyword == "FROM"]
    parts = [found[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    used = {part[0][1].split()[0] for part in parts}
    used |= {word.removeprefix("--from=") for _, a in found for word in a.split() if word.startswith("--from=")}
    return {name: part for part in parts if (name := part[0][1].split()[-1]) not in used - {part[0][1]}}


def tool(name: str) -> str:
    """Path of a program of the test environment."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed; requirements/test.txt has it")
    return found


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def path(request) -> Path:
    return request.param


def test_there_are_three_images():
    assert [path.name for path in DOCKERFILES] == ["serve.Dockerfile", "train.Dockerfile", "train.gpu.Dockerfile"]
    assert [name for path in DOCKERFILES for name in stages(path)] == ["${BASE}", "ssh", "runtime", "${IMAGE}"]


def test_hadolint_finds_nothing(path):
    done = subprocess.run([tool("hadolint"), "--no-color", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_finds_nothing():
    assert len(SCRIPTS) > 8
    done = subprocess.run([tool("shellcheck"), *SCRIPTS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_scripts_parse():
    for script in SCRIPTS:
        shell = "bash" if script.read_text(encoding="utf-8").startswith("#!/bin/bash") else "sh"
        subprocess.run([shell, "-n", script], check=True)


def test_copied_sources_exist_and_are_not_ignored(path):
    found = instructions(path)
    names = [arguments.split()[-1] for keyword, arguments in found if keyword == "FROM"]
    ignored = path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    for words in (shlex.split(arguments) for keyword, arguments in found if keyword == "COPY"):
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in names
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} is not let through by the .dockerignore file"
    for line in ignored:
        assert not line.startswith("!") or (ROOT / line[1:]).exists(), f"{line} lets through what is not there"


def test_images_run_as_a_plain_user(path):
    for stage in stages(path).values():
        users = [arguments for keyword, arguments in stage if keyword == "USER"]
        assert users[-1] == "10001:10001"


def test_pods_of_the_mpijob_find_their_keys_where_the_secret_is_mounted():
    job = next(yaml.safe_load_all((ROOT / "deploy" / "k8s" / "mpijob.yaml").read_text(encoding="utf-8")))
    folder = job["spec"]["sshAuthMountPath"]
    for name, keys in (("sshd_config", ("HostKey", "AuthorizedKeysFile")), ("ssh_config", ("IdentityFile",))):
        lines = (ROOT / "docker" / name).read_text(encoding="utf-8").splitlines()
        words = dict(line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))
        assert all(words[key].startswith(f"{folder}/") for key in keys)
    command = job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["command"]
    assert f"COPY docker/sshd_config {command[-1]}" in (ROOT / "docker" / "train.Dockerfile").read_text(
        encoding="utf-8"
    )


def test_pins(path):
    text = "\n".join(f"{keyword} {arguments}" for keyword, arguments in instructions(path))
    assert ":latest" not in text and "curl" not in text and "wget" not in text and "ADD " not in text
    for line in (line for line in text.splitlines() if "pip install" in line):
        own = line.endswith("--no-build-isolation .") or "--no-index /wheels/" in line
        assert "--no-deps" in line and (own or "--require-hashes --only-binary :all:" in line)


def test_the_image_has_the_python_and_the_locks_of_the_repository():
    text = (ROOT / "docker" / "train.Dockerfile").read_text(encoding="utf-8")
    assert "--requirement requirements/run.txt" in text and "python3.11" in text
    assert "--python-version 3.11" in (ROOT / "scripts" / "lock.sh").read_text(encoding="utf-8")
    # Horovod's wheel comes from the script that pins its source, in a stage whose compilers no image goes on from.
    assert "sh scripts/horovod.sh wheel" in text and "COPY --from=horovod /wheels /wheels" in text
    assert "requirements/horovod.txt" in (ROOT / "scripts" / "horovod.sh").read_text(encoding="utf-8")


def test_the_gpu_lock_holds_what_tensorflow_names():
    lines = (ROOT / "requirements" / "gpu.txt").read_text(encoding="utf-8").splitlines()
    locked = {
        canonicalize_name(m[1]): m[2] for line in lines if (m := re.match(r"([a-z0-9][\w.-]*)==([^ ;\\]+)", line))
    }
    needed = [Requirement(line) for line in metadata.requires("tensorflow") or [] if "and-cuda" in line]
    assert needed and {canonicalize_name(r.name) for r in needed} <= locked.keys()
    assert all(r.specifier.contains(locked[canonicalize_name(r.name)]) for r in needed)
    run = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    assert not [name for name in locked if re.search(rf"^{re.escape(name)}==", run, re.MULTILINE)]


def test_no_secret_is_built_in(path):
    names = [a.split("=")[0].lower() for keyword, a in instructions(path) if keyword in ("ARG", "ENV")]
    assert not [name for name in names if any(word in name for word in ("token", "password", "secret", "key"))]


def test_images_start_and_check_themselves():
    for name in ("train", "serve"):
        found = instructions(ROOT / "docker" / f"{name}.Dockerfile")
        (entry,) = [arguments for keyword, arguments in found if keyword == "ENTRYPOINT"]
        (health,) = [arguments for keyword, arguments in found if keyword == "HEALTHCHECK"]
        assert json.loads(entry)[0] in ("tini", "tensorflow_model_server")
        script = json.loads(health[health.index("[") :])[1]
        assert f"docker/{Path(script).name}" in " ".join(a for keyword, a in found if keyword == "COPY")


def test_the_server_reads_the_files_that_an_export_writes():
    from easytransfer.export.saved_model import SERVING_ROOT
    from easytransfer.savedmodel.server_files import FILES

    (entry,) = [a for keyword, a in instructions(ROOT / "docker" / "serve.Dockerfile") if keyword == "ENTRYPOINT"]
    files = [word.partition("=")[2] for word in json.loads(entry) if "_file=" in word]
    assert sorted(files) == sorted(f"{SERVING_ROOT}/{name}" for name in FILES)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "easy_transfer_app --help"),
        (["--mode=predict"], "easy_transfer_app --mode=predict"),
        (["easy_transfer_app", "apps"], "easy_transfer_app apps"),
        (["serve-check", "model"], "easy_transfer_app export validate model"),
        (["echo", "hello"], "hello"),
        *(([verb, "--config", "a b.yaml"], f"easy_transfer_app {verb} --config a b.yaml") for verb in VERBS),
    ],
)
def test_entry_point(tmp_path: Path, arguments, expected):
    for name in ("easy_transfer_app", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "docker" / "entrypoint.sh", *arguments],
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_health(tmp_path: Path):
    problem = runpy.run_path(str(ROOT / "docker" / "health.py"))["problem"]
    assert problem(tmp_path, 10) is None
    log = tmp_path / "runs" / "one" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.touch()
    assert problem(tmp_path, 10) is None
    os.utime(log, (0, 0))
    assert "s old" in problem(tmp_path, 10)
    (log.parent / "DONE").touch()
    assert problem(tmp_path, 10) is None


# The server, and who asks it ----------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A loopback server; `answers` maps a path to (status, JSON value)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            asked.append(json.loads(self.rfile.read(length) or "null"))
            status, value = answers.get(self.path, (404, {"error": "no such model"}))
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    answers, asked = {}, []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running.server_port, answers, asked
    running.shutdown()
    running.server_close()


def test_health_of_the_server(tmp_path, server):
    port, answers, _ = server
    environment = os.environ | {"EZ_MODELS": str(tmp_path), "EZ_REST_PORT": str(port)}

    def check() -> tuple[int, str]:
        script = ROOT / "docker" / "serve_health.sh"
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr

    (tmp_path / "models.config").write_text(
        'model_config_list {\n  config {\n    name: "one"\n  }\n  config {\n    name: "two"\n  }\n}\n'
    )
    for state, code in (("LOADING", 1), ("AVAILABLE", 0)):
        for name in ("one", "two"):
            answers[f"/v1/models/{name}"] = (200, {"model_version_status": [{"version": "1", "state": state}]})
        assert check()[0] == code
    del answers["/v1/models/two"]
    assert check() == (1, "two has no available version\n")
    (tmp_path / "models.config").write_text("")
    assert check()[0] == 1
    environment["EZ_REST_PORT"] = "1"  # nothing listens
    assert check()[0] == 1


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A models folder with two versions of one model; the newer one's samples are what a client must get."""
    import numpy as np

    from easytransfer.savedmodel.array_json import encode_array

    for version, shift in ((9, 5.0), (10, 0.0)):
        folder = tmp_path / "sentiment" / str(version)
        (folder / "assets.extra").mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        outputs = {
            "probabilities": encode_array(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32) + np.float32(shift)),
            "label": encode_array(np.array(["neg", "pos"], object)),
            "logits": encode_array(np.array([[0.0, 10.0], [-1e9, 9.0]], np.float32)),
        }
        inputs = {"text": encode_array(np.array(["bad", b"\xff"], object))}
        # The second row's label hangs on the last bit of its probabilities.
        sample = {"inputs": inputs, "outputs": {"1": {}, "2": outputs}, "undecided": {"label": [1]}}
        samples = {"serving_default": sample}
        (folder / "assets.extra" / "export.json").write_text(json.dumps({"samples": samples}))
    return tmp_path


def smoke(port: int, folder: Path) -> tuple[int, dict]:
    command = [sys.executable, ROOT / "docker" / "smoke.py", f"http://127.0.0.1:{port}/", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def test_smoke_client(server, export):
    port, answers, asked = server
    place = "/v1/models/sentiment/versions/10:predict"
    right = {
        "probabilities": [[0.250001, 0.75], [0.5, 0.5]],
        "label": ["neg", "neg"],
        # 2e-4 is rounding beside numbers of size 10.
        "logits": [[2e-4, 10.0], [-1e9, 9.0]],
    }
    answers[place] = (200, {"outputs": right})
    assert smoke(port, export) == (0, {"model": "sentiment", "version": 10, "ok": True, "differing_outputs": []})
    assert asked == [{"signature_name": "serving_default", "inputs": {"text": ["bad", {"b64": "/w=="}]}}]
    for wrong in (
        right | {"probabilities": [[0.26, 0.74], [0.5, 0.5]]},
        right | {"probabilities": [0.25, 0.75, 0.5, 0.5]},
        right | {"probabilities": [[0.25, 0.75]]},
    ):
        answers[place] = (200, {"outputs": wrong})
        code, line = smoke(port, export)
        assert (code, line["differing_outputs"]) == (1, ["probabilities"])
    for name, value in {
        "label": ["pos", "pos"],
        "logits": [[5e-4, 10.0], [-1e9, 9.0]],
    }.items():
        answers[place] = (200, {"outputs": right | {name: value}})
        code, line = smoke(port, export)
        assert (code, line["differing_outputs"]) == (1, [name])
    answers[place] = (429, {"error": "overloaded"})
    code, line = smoke(port, export)
    assert code == 1 and "answered 429" in line["error"] and "overloaded" in line["error"]


def test_smoke_client_without_a_model(tmp_path):
    assert smoke(1, tmp_path) == (1, {})


# Compose ------------------------------------------------------------------------------------------------------


@pytest.fixture
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_goes_from_training_to_a_question(compose):
    services = compose["services"]
    order = {"export": "train", "serving": "export", "smoke": "serving"}
    for later, earlier in order.items():
        ((name, condition),) = services[later]["depends_on"].items()
        wanted = "service_healthy" if earlier == "serving" else "service_completed_successfully"
        assert (name, condition["condition"]) == (earlier, wanted)
    assert services["tensorboard"]["profiles"] == ["tensorboard"]
    assert not [name for name in order if "profiles" in services[name]]
    assert services["serving"]["build"]["dockerfile"] == "docker/serve.Dockerfile"


def test_compose_has_our_own_server_as_another_way(compose):
    services = compose["services"]
    names = {"embedded": "export", "embedded-smoke": "embedded"}
    assert [name for name in services if services[name].get("profiles") == ["embedded"]] == list(names)
    assert [list(services[name]["depends_on"]) for name in names] == [[earlier] for earlier in names.values()]
    assert services["embedded-smoke"]["depends_on"]["embedded"]["condition"] == "service_healthy"
    assert services["embedded"]["ports"] == services["serving"]["ports"]
    assert services["embedded-smoke"]["command"][2] == "http://embedded:8501"


def test_our_own_server_in_compose_starts_and_says_when_it_is_ready(compose, server):
    service = compose["services"]["embedded"]
    words = [word.replace("/models", str(ROOT)) for word in service["command"]]
    assert words[0] == "serve"
    config = read_settings(ServingConfig, split_flags([f"--modelDir={words[1]}", *words[2:]]), OWN_FLAGS)
    assert (config.host, config.rest_port, config.grpc_port) == ("0.0.0.0", 8501, 8500)
    grace = re.fullmatch(r"(\d+)m", service["stop_grace_period"])
    assert 60 * int(grace[1]) > config.drain_delay_seconds + config.drain_seconds
    port, answers, _ = server
    kind, _, *check = service["healthcheck"]["test"]
    assert kind == "CMD" and f"127.0.0.1:{config.rest_port}/" in check[-1]
    command = [sys.executable, *check[:-1], check[-1].replace(f":{config.rest_port}/", f":{port}/")]
    for status, healthy in ((503, False), (200, True)):
        answers["/readyz"] = (status, {})
        assert (subprocess.run(command, capture_output=True).returncode == 0) == healthy


def test_compose_confines_every_service(compose):
    for service in compose["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
        assert service["security_opt"] == ["no-new-privileges:true"] and service["tmpfs"] == ["/tmp"]
        assert not service["image"].endswith(":latest")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= {"data", "models", "${EZ_DATA"}
        assert service["image"] in (*images(), "easytransfer:2.0.0"), "built by one of the Dockerfiles"


def images() -> set[str]:
    """Names the Dockerfiles give to what they build."""
    texts = "".join(path.read_text(encoding="utf-8") for path in DOCKERFILES)
    return set(re.findall(r"docker build .* -t (\S+)", texts))


def test_compose_runs_command_lines_of_ours(compose, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in compose["services"]["train"]["command"]]
    assert JobReader(words[0], words[1:], []).read().config.checkpoint_dir == "/data/run"
    words = compose["services"]["export"]["command"]
    (tmp_path / "train_config.json").write_text('{"schema_version": 2, "model_name": "text_classify_bert"}')
    words = [word.replace("/data/run", str(tmp_path)) for word in words]
    assert JobReader(words[0], words[1:], []).read().config.export.export_dir_base == "/models"


def test_compose_is_valid_to_docker():
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("docker compose is not installed")
    file = ROOT / "docker" / "compose.yaml"
    subprocess.run(["docker", "compose", "-f", file, "--profile", "*", "config", "--quiet"], check=True)
