"""The `zoo` command: what it prints where, its exit status, and one line for every way to use it wrongly."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from ranking_fakes import fake_card, fake_cost, fake_row

from zoo import cli, registry
from zoo.cards import SeedResult
from zoo.cost import count_macs
from zoo.data import Dataset
from zoo.evaluation import Evaluation, evaluate
from zoo.files import sha256_file
from zoo.ranking import mark_fronts
from zoo.weights import read_card, save_weights, write_card

Captured = pytest.CaptureFixture[str]
LENET = ("lenet5", "digits")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, digits: tuple[Dataset, Dataset]) -> tuple[Path, Evaluation]:
    """A zoo folder with one honest weight file, an untrained lenet5 for the digits, and what it scores."""
    folder = tmp_path_factory.mktemp("weights")
    train, test = digits
    torch.manual_seed(0)
    model = registry.build("lenet5", num_classes=10, in_chans=1, image_size=28)
    path = folder / "lenet5.digits.safetensors"
    save_weights(path, model)
    for parameter in model.parameters():  # as stored: half precision
        if parameter.ndim >= 2:
            parameter.data = parameter.data.half().float()
    scored = evaluate(model, test)
    card = replace(
        fake_card(*LENET),
        sha256=sha256_file(path),
        file_bytes=path.stat().st_size,
        params=sum(p.numel() for p in model.parameters()),
        macs=count_macs(model, test.image),
        correct=scored.correct,
        total=scored.total,
        loss=scored.loss,
        seeds=(SeedResult(0, scored.correct, scored.total),),
        data_digest={"train": train.digest, "test": test.digest},
    )
    write_card(folder / "lenet5.digits.json", card)
    return folder, scored


@pytest.fixture
def weights(
    stored: tuple[Path, Evaluation], digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of that folder that the test may spoil; the digits are the only data there are."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for path in stored[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    monkeypatch.setenv("ZOO_DATA", str(digits_root))
    return folder


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs from the fakes, and only their models."""
    monkeypatch.setattr("zoo.ranking.cached_cost", fake_cost)
    rows = mark_fronts([fake_row("lenet5", 0.7, 10), fake_row("nin", 0.6, 20), fake_row("vgg16", None, 90)])
    monkeypatch.setattr("zoo.ranking.collect", lambda *_, **__: rows)


class TestWrongUse:
    """Exit status 2, nothing on stdout, one line on stderr that names what is nearest."""

    @pytest.mark.parametrize(
        ("command", "line"),
        [
            (
                "show squeezenet11",
                "no model is called 'squeezenet11'. Did you mean 'squeezenet1_1' or 'squeezenet1_0'? "
                "`zoo list` prints them all.",
            ),
            (
                "rank lenet --dataset mnist",
                "no model is called 'lenet'. Did you mean 'lenet5' or 'alexnet'? `zoo list` prints them all.",
            ),
            ("rank vgq*", "no model is called 'vgq*'. `zoo list` prints them all."),
            (
                "rank --dataset cifr10",
                "no data set is called 'cifr10'. Did you mean 'cifar10' or 'cifar100'? "
                "Known: cifar10, cifar100, digits, fashion_mnist, folder:PATH, mnist.",
            ),
            ("list --family squeezenets", "no family is called 'squeezenets'. Did you mean 'squeezenet'"),
            ("list --dataset mnits", "no data set is called 'mnits'. Did you mean 'mnist'"),
            ("rank --by mac", "no column is called 'mac'. Did you mean 'macs'"),
            ("rank --where parms<1", "no column is called 'parms'. Did you mean 'params'"),
            ("rank --columns name,mcs", "no column is called 'mcs'. Did you mean 'macs'"),
            ("rank --where macs+1", "the condition 'macs+1' is not understood"),
            ("rank --top 0", "top=0 was asked for"),
            (
                "rank --format jsn",
                "no format is called 'jsn'. Did you mean 'json'? Known: csv, html, json, markdown, text.",
            ),
            ("rank --plot front.gif", "a plot cannot be written as 'front.gif'"),
            ("pareto --x mac", "no axis is called 'mac'. Did you mean 'macs'"),
            ("show lenet5 --dataset mnist --image-size 32", "--dataset and --image-size both set the image"),
            ("show lenet5 --image-size 4", "an image of 4 x 4 is too small for lenet5"),
            ("data cifar1", "no data set is called 'cifar1'. Did you mean 'cifar10'"),
            ("eval lenet5 --dataset digits --split tst", "no split is called 'tst'. Did you mean 'test'"),
            ("eval lenet5 --dataset digits --tag none", "there are no weights 'lenet5.digits.none'"),
            ("eval lenet5", "it is not known what to score"),
            ("verify lenet5.digit", "no weight file is called 'lenet5.digit'. Did you mean 'lenet5.digits'"),
            ("rnk", "no such command 'rnk'. Did you mean 'rank'? `zoo --help` says what there is."),
            ("rank --famly x", "no such option: --famly"),
            ("rank --top many", "invalid value for '--top'"),
            ("show", "missing argument 'MODEL'. `zoo show --help` says what there is."),
            ("train lenet5 --dataset mnist --recipe nmist", "no recipe is called 'nmist'"),
            ("train lenet5 --datset mnist", "unrecognized arguments: --datset mnist. Did you mean --dataset?"),
        ],
    )
    @pytest.mark.usefixtures("weights")
    def test_one_line(
        self, command: str, line: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("zoo.ranking.cached_cost", lambda *_: fake_cost("lenet5"))
        assert cli.main(command.split()) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"zoo: error: {line}")
        assert err.count("\n") == 1
        assert not list(tmp_path.glob("*.gif"))

    @pytest.mark.usefixtures("no_weights")
    def test_nothing_to_verify_is_not_a_pass(self, capsys: Captured) -> None:
        assert cli.main(["verify"]) == 2
        assert "there are no weights in" in capsys.readouterr().err


class TestList:
    @pytest.mark.usefixtures("weights")
    def test_names_and_weights(self, capsys: Captured) -> None:
        assert cli.main(["list", "--format", "json"]) == 0
        listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
        assert list(listed) == list(registry.architectures())
        assert listed["lenet5"]["weights"] == "digits"

    @pytest.mark.usefixtures("weights")
    def test_pretrained_and_pattern(self, capsys: Captured) -> None:
        assert cli.main(["list", "--pretrained", "--format", "csv"]) == 0
        assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["name", "lenet5"]
        assert cli.main(["list", "vgg1[16]", "--format", "csv"]) == 0
        assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["name", "vgg11", "vgg16"]


class TestShow:
    @pytest.mark.usefixtures("weights")
    def test_published_form(self, capsys: Captured) -> None:
        assert cli.main(["show", "lenet5", "--format", "json"]) == 0
        page = json.loads(capsys.readouterr().out)
        assert (page["model"]["params"], page["model"]["macs"]) == (61_706, 416_520)
        assert "layers" not in page
        assert page["weights"][0]["stem"] == "lenet5.digits"

    @pytest.mark.usefixtures("no_weights")
    def test_a_data_set_and_layers(self, capsys: Captured) -> None:
        assert cli.main(["show", "lenet_300_100", "--dataset", "mnist", "--layers", "--format", "json"]) == 0
        page = json.loads(capsys.readouterr().out)
        assert page["model"]["image"] == [1, 28, 28]
        assert [layer["macs"] for layer in page["layers"]] == [784 * 300, 300 * 100, 100 * 10]
        assert "weights" not in page

    @pytest.mark.usefixtures("no_weights")
    def test_an_image_size(self, capsys: Captured) -> None:
        assert cli.main(["show", "lenet_300_100", "--image-size", "20"]) == 0
        assert "1 x 20 x 20" in capsys.readouterr().out


@pytest.mark.usefixtures("ranked")
class TestRankAndPareto:
    @pytest.mark.parametrize(
        ("options", "first", "count"),
        [
            ("", "lenet5", 3),
            ("--by -macs", "vgg16", 3),
            ("--by top1,macs --top 2", "lenet5", 2),
            ("--where macs>15", "nin", 2),
        ],
    )
    def test_order_and_filters(self, options: str, first: str, count: int, capsys: Captured) -> None:
        assert cli.main(["rank", *options.split(), "--format", "json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert (rows[0]["name"], len(rows)) == (first, count)

    def test_columns(self, capsys: Captured) -> None:
        assert cli.main(["rank", "--columns", "name, macs", "--format", "csv"]) == 0
        assert capsys.readouterr().out == "name,macs\nlenet5,10\nnin,20\nvgg16,90\n"

    def test_every_format_prints_every_row(self, capsys: Captured) -> None:
        for form in ("text", "csv", "json", "markdown", "html"):
            assert cli.main(["rank", "--format", form]) == 0
            out, err = capsys.readouterr()
            assert all(name in out for name in ("lenet5", "nin", "vgg16"))
            assert err == ""

    def test_plot_is_told_on_stderr(self, tmp_path: Path, capsys: Captured) -> None:
        assert cli.main(["rank", "--plot", str(tmp_path / "a.svg"), "--format", "json"]) == 0
        out, err = capsys.readouterr()
        assert (tmp_path / "a.svg").exists()
        assert json.loads(out)
        assert err == f"wrote {tmp_path / 'a.svg'}\n"

    def test_pareto_prints_the_front_alone(self, tmp_path: Path, capsys: Captured) -> None:
        assert cli.main(["pareto", "--x", "params", "--out", str(tmp_path / "a.png"), "--format", "json"]) == 0
        out, err = capsys.readouterr()
        assert [row["name"] for row in json.loads(out)] == ["lenet5"]
        assert "1 of 3 rows have no weights" in err
        assert (tmp_path / "a.png").exists()

    def test_pareto_without_weights_says_so(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zoo.ranking.collect", lambda *_, **__: [fake_row("lenet5", None, 10)])
        assert cli.main(["pareto"]) == 0
        assert "no model has weights for cifar10 yet" in capsys.readouterr().err


@pytest.mark.usefixtures("no_weights")
def test_compare_and_patterns(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.ranking.cached_cost", lambda name, *_: fake_cost(name.removesuffix("_caffe")))
    assert cli.main(["compare", "vgg16_bn", "lenet5*", "--format", "json"]) == 0
    macs = json.loads(capsys.readouterr().out)["macs"]
    assert macs == {"vgg16_bn": 100_000_000, "lenet5": 10_000, "lenet5_caffe": 10_000}


class TestEval:
    def test_scores_stored_weights(self, weights: Path, stored: tuple[Path, Evaluation], capsys: Captured) -> None:
        assert cli.main(["eval", *LENET[:1], "--dataset", "digits", "--format", "json"]) == 0
        page = json.loads(capsys.readouterr().out)
        assert (page["correct"], page["total"]) == (stored[1].correct, stored[1].total)
        assert page["loss"] == pytest.approx(stored[1].loss)

    @pytest.mark.parametrize("given", [[*LENET[:1], "--dataset", "digits"], ["--weights", "lenet5.digits.safetensors"]])
    def test_other_images_than_the_cards_are_named(
        self, given: list[str], weights: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(weights)
        assert cli.main(["eval", *given]) == 0
        assert "digest" not in capsys.readouterr().err
        card = read_card(weights / "lenet5.digits.json")
        write_card(weights / "lenet5.digits.json", replace(card, data_digest={**card.data_digest, "test": "1" * 64}))
        assert cli.main(["eval", *given]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("these are not the images that the card of lenet5.digits is about: test digest: ")
        assert cli.main(["eval", *given, "--split", "train"]) == 0
        assert "digest" not in capsys.readouterr().err

    @pytest.mark.parametrize("given", ["lenet5.digits.safetensors", "."])
    def test_a_file_or_folder_with_a_card_needs_no_names(
        self, given: str, weights: Path, stored: tuple[Path, Evaluation], capsys: Captured
    ) -> None:
        assert cli.main(["eval", "--weights", str(weights / given), "--confusion", "--format", "json"]) == 0
        page = json.loads(capsys.readouterr().out)
        assert page["evaluation"]["correct"] == stored[1].correct
        assert sum(sum(row.values()) for row in page["confusion"].values()) == stored[1].total

    def test_a_file_without_a_card_needs_both(self, weights: Path, capsys: Captured) -> None:
        (weights / "lenet5.digits.json").unlink()
        file = str(weights / "lenet5.digits.safetensors")
        assert cli.main(["eval", "--weights", file]) == 2
        assert cli.main(["eval", "lenet5", "--dataset", "digits", "--weights", file]) == 0
        assert "correct" in capsys.readouterr().out

    def test_a_tampered_file_is_refused(self, weights: Path, capsys: Captured) -> None:
        path = weights / "lenet5.digits.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        for arguments in (["lenet5", "--dataset", "digits"], ["--weights", str(path)]):
            assert cli.main(["eval", *arguments]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert "lenet5.digits" in err

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path, capsys: Captured) -> None:
        assert cli.main(["eval", "--weights", str(tmp_path)]) == 2
        assert "holds 0 weight files" in capsys.readouterr().err


class TestVerify:
    @pytest.mark.parametrize("arguments", [[], ["lenet5.digits"], ["--accuracy"]])
    @pytest.mark.usefixtures("weights")
    def test_green(self, arguments: list[str], capsys: Captured) -> None:
        assert cli.main(["verify", *arguments, "--format", "csv"]) == 0
        out, err = capsys.readouterr()
        assert out == "stem,verdict,differences\nlenet5.digits,green,\n"
        assert err == "checking lenet5.digits\n"

    def test_red_for_a_changed_file(self, weights: Path, capsys: Captured) -> None:
        path = weights / "lenet5.digits.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        assert cli.main(["verify"]) == 1
        assert "red" in capsys.readouterr().out

    def test_red_for_weights_without_a_card(self, weights: Path, capsys: Captured) -> None:
        (weights / "nin.digits.safetensors").write_bytes(b"")
        assert cli.main(["verify", "--format", "csv"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == "lenet5.digits,green,"
        assert lines[2].startswith("nin.digits,red,")

    def test_only_accuracy_sees_a_false_score(self, weights: Path, capsys: Captured) -> None:
        path = weights / "lenet5.digits.json"
        card = json.loads(path.read_text())
        claimed = card["correct"] + 1
        card |= {"correct": claimed, "top1": claimed / card["total"]}
        card["seeds"] |= {
            "mean": claimed / card["total"],
            "runs": [{"seed": 0, "correct": claimed, "total": card["total"]}],
        }
        path.write_text(json.dumps(card))
        assert cli.main(["verify"]) == 0
        capsys.readouterr()
        assert cli.main(["verify", "--accuracy", "--format", "json"]) == 1
        assert f"the card says {claimed}" in json.loads(capsys.readouterr().out)[0]["differences"]


@pytest.mark.usefixtures("weights")
def test_data_describes_both_splits(capsys: Captured, digits: tuple[Dataset, Dataset]) -> None:
    assert cli.main(["data", "digits", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert [(row["split"], row["images"], row["sha256"]) for row in json.loads(out)] == [
        (d.split, len(d), d.digest) for d in digits
    ]
    assert "digits" in err


@pytest.mark.usefixtures("weights")
def test_data_refresh_fetches_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("zoo.data.refresh_dataset", asked.append)
    assert cli.main(["data", "digits"]) == 0
    assert asked == []
    assert cli.main(["data", "digits", "--refresh"]) == 0
    assert asked == ["digits"]


class TestTrain:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["lenet5", "--dataset", "mnist", "--set", "lr=0.1", "--set", "epochs=2", "--seed", "1"],
            ["--resume", "runs/train/1-lenet5-mnist", "--compile"],
            ["--help"],
            [],
        ],
    )
    def test_arguments_pass_as_they_are(self, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[list[str]] = []
        monkeypatch.setattr("zoo.train_cli.main", lambda given: seen.append(list(given)) or 143)
        assert cli.main(["train", *arguments]) == 143
        assert seen == [arguments]


class TestManners:
    def test_without_arguments_it_helps(self, capsys: Captured) -> None:
        assert cli.main([]) == 0
        out = capsys.readouterr().out
        assert all(
            name in out for name in ("list", "show", "rank", "compare", "pareto", "eval", "train", "verify", "data")
        )
        assert "..." not in out.partition("Commands")[2], "a command's help does not fit its line"

    def test_interrupt_is_quiet(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("zoo.ranking.rank", interrupted)
        assert cli.main(["rank"]) == 130
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
    def test_interrupt_outside_a_command_is_quiet_too(
        self, error: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli, "app", interrupted)
        assert cli.main(["rank"]) == 130
        assert capsys.readouterr() == ("", "")

    def test_a_bugs_traceback_is_pythons_own(self) -> None:
        code = "import sys, zoo.ranking as r; r.rank = None; from zoo.cli import main; sys.exit(main(['rank']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback (most recent call last):")
        assert done.stderr.splitlines()[-1].startswith("TypeError")

    def test_a_bug_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("zoo.ranking.rank", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            cli.main(["rank"])

    @pytest.mark.usefixtures("ranked")
    def test_width_is_heeded_where_it_is_known(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("COLUMNS", "60")
        assert cli.main(["rank"]) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines()[:5])) <= 60
        assert "left out for want of width" in out

    def test_list_imports_nothing_heavy_and_help_not_even_torch(self) -> None:
        heavy = "torchvision timm fvcore matplotlib sklearn onnx rich.console"
        for command, banned in (("list", heavy), ("--help", f"{heavy} torch zoo.registry"), ("show nin --help", heavy)):
            code = (
                f"import sys; from zoo.cli import main; status = main({command.split()!r}); "
                f"print(status, [n for n in {banned.split()!r} if n in sys.modules], file=sys.stderr)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert done.stderr == "0 []\n", command

    def test_a_reader_that_leaves_early_is_no_error(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
        process.stderr.close()
        assert (process.wait(), complaint) == (0, "")

    def test_exit_status_reaches_the_shell(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "zoo", "show", "lenet"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("zoo: error: no model is called 'lenet'.")
        assert done.stderr.count("\n") == 1

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
    def test_a_full_disk_is_one_sentence(self) -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "zoo", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (done.returncode, done.stderr) == (1, "zoo: error: No space left on device (standard output).\n")
