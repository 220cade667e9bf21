"""The set of characters: which images count, that they are the same everywhere, and that a trainer can read them."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fontTools", reason="the glyphs extra is not installed")

from attfc_train.backbones.kinds import build_encoder
from attfc_train.data.decode import decode
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.evaluate.bins import read_bin
from attfc_train.evaluate.embed import embed
from attfc_train.profile.file import save_profile
from attfc_train.run.checkpoint import save_model
from attfc_train.run.loop import MODEL_FILE, PROFILE_FILE
from benchmarks.glyphs import __main__ as program
from benchmarks.glyphs import build as building
from benchmarks.glyphs import packages
from benchmarks.glyphs.build import HARD, NEAREST, TEST, VALIDATION, Settings, build
from benchmarks.glyphs.fonts import FOLDERS, HAN, Face, coverages, font_files
from benchmarks.glyphs.licences import described
from benchmarks.glyphs.nearest import mutual_nearest
from benchmarks.glyphs.pairs import genuine, impostors, radical, radical_impostors
from benchmarks.glyphs.render import SIZE, bitmap, rendered
from benchmarks.glyphs.split import HeldOut, split
from benchmarks.glyphs.survey import Survey, survey
from benchmarks.provenance import RESULTS
from tests.architecture.modules import ROOT
from tests.benchmarks.made_fonts import CHARACTERS, font, shape, styled, write_collection, write_styles
from tests.train.profiles import small_profile

STYLES = 4
PAIRS = 60


def settings(fonts: Path, **changes: object) -> Settings:
    standard = Settings((fonts,), (CHARACTERS,), held_out=HeldOut(0.4, 0.2), test_pairs=PAIRS, validation_pairs=20)
    return replace(standard, **changes)


def surveyed(folder: Path, alphabet: range = CHARACTERS, least_faces: int = 3) -> Survey:
    with ThreadPool(1) as pool:
        return survey(font_files([folder]), [alphabet], pool, least_faces)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("manifest.json", "survey.npz", NEAREST)
    )
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_styles(tmp_path_factory.mktemp("fonts"), STYLES)


@pytest.fixture(scope="module")
def built(fonts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "glyphs"
    build(folder, "5k", settings(fonts), 1, lambda _: None)
    return folder


class TestWhatCounts:
    def test_every_style_of_every_character(self, fonts: Path) -> None:
        images = surveyed(fonts)
        assert images.distinct_characters.tolist() == list(CHARACTERS)
        assert images.characters.size == STYLES * len(CHARACTERS)

    def test_a_font_under_another_name_adds_nothing(self, fonts: Path, tmp_path: Path) -> None:
        """Catches the face's name or index in the hash of a bitmap."""
        write_styles(tmp_path, STYLES)
        styled("A copy", 0).save(tmp_path / "maker0" / "copy.ttf")
        assert surveyed(tmp_path).characters.size == STYLES * len(CHARACTERS)

    def test_a_box_for_missing_characters_is_nobodys(self, tmp_path: Path) -> None:
        """Catches `_own` without its counts of bitmaps."""
        write_styles(tmp_path, 3)
        font("Boxes", {character: [(100, 100, 900, 900)] for character in CHARACTERS}).save(tmp_path / "boxes.ttf")
        font("Blank", {character: [] for character in CHARACTERS}).save(tmp_path / "blank.ttf")
        assert surveyed(tmp_path).characters.size == 3 * len(CHARACTERS)

    def test_a_character_that_a_font_draws_as_another_does_not_count_there(self, tmp_path: Path) -> None:
        write_styles(tmp_path, 3)
        first, second = CHARACTERS[:2]
        font("Alike", dict.fromkeys((first, second), shape(first, 3))).save(tmp_path / "alike.ttf")
        assert [len(surveyed(tmp_path).identity(character).faces) for character in (first, second)] == [3, 3]

    def test_too_few_styles_are_no_identity(self, tmp_path: Path) -> None:
        write_styles(tmp_path, 2)
        few = CHARACTERS[:5]
        styled("Few", 2, few).save(tmp_path / "few.ttf")
        assert surveyed(tmp_path).distinct_characters.tolist() == list(few)
        assert surveyed(tmp_path, least_faces=2).distinct_characters.size == len(CHARACTERS)

    def test_faces_of_a_collection_count_where_they_differ(self, tmp_path: Path) -> None:
        """Regional faces share most outlines; catches `coverages` that looks into the first face alone."""
        regional = font("Regional", {character: shape(character, 0 if character % 4 else 1) for character in CHARACTERS})
        write_collection(tmp_path / "both.ttc", [styled("Common", 0), regional])
        images = surveyed(tmp_path, least_faces=1)
        assert {face.index for face in images.faces} == {0, 1}
        assert images.characters.size == len(CHARACTERS) + len(CHARACTERS[::4])

    def test_outlines_that_faces_share_are_drawn_once(self, tmp_path: Path) -> None:
        """Ten faces of a file share most of theirs; drawing all of them would take several times as long."""
        write_collection(tmp_path / "shared.ttc", [styled("One", 0), styled("Other", 0)])
        covered = coverages(tmp_path / "shared.ttc", [CHARACTERS])
        assert [(coverage.face.index, len(coverage.characters)) for coverage in covered] == [(0, len(CHARACTERS))]

    def test_a_broken_font_is_passed_over(self, tmp_path: Path) -> None:
        write_styles(tmp_path, 3)
        (tmp_path / "broken.ttf").write_bytes(b"not a font at all")
        assert surveyed(tmp_path).characters.size == 3 * len(CHARACTERS)

    def test_links_are_no_fonts_of_their_own(self, tmp_path: Path) -> None:
        write_styles(tmp_path, 1)
        (tmp_path / "alias.ttf").symlink_to(tmp_path / "maker0" / "style0.ttf")
        assert [path.name for path in font_files([tmp_path])] == ["style0.ttf"]


class TestImages:
    def test_strokes_are_darker_than_the_ground(self, fonts: Path) -> None:
        """Catches a polarity drawn at random, with which nothing learns."""
        face = Face(fonts / "maker1" / "style2.ttf", 0)
        ground = [np.percentile(rendered(face, character), 90) - rendered(face, character).min() for character in CHARACTERS]
        border = [rendered(face, character)[0].mean() - rendered(face, character).mean() for character in CHARACTERS]
        assert min(ground) > 30
        assert np.mean(border) > 10

    def test_mixed_polarity_inverts_about_half(self, fonts: Path) -> None:
        face = Face(fonts / "maker1" / "style2.ttf", 0)
        same = [np.array_equal(rendered(face, code), rendered(face, code, "mixed")) for code in CHARACTERS]
        inverted = [
            np.abs(255.0 - rendered(face, code) - rendered(face, code, "mixed")).max() <= 1
            for code, is_same in zip(CHARACTERS, same, strict=True)
            if not is_same
        ]
        assert all(inverted)
        assert 0.25 < len(inverted) / len(CHARACTERS) < 0.75

    def test_the_folder_of_a_font_does_not_matter(self, fonts: Path, tmp_path: Path) -> None:
        """Catches the path in the seed, with which no two machines would agree."""
        moved = tmp_path / "style1.ttf"
        moved.write_bytes((fonts / "maker0" / "style1.ttf").read_bytes())
        pictures = [rendered(Face(path, 0), CHARACTERS[7]) for path in (moved, fonts / "maker0" / "style1.ttf")]
        np.testing.assert_array_equal(*pictures)

    def test_nothing_touches_the_border_by_much(self, fonts: Path) -> None:
        """Catches a glyph drawn larger than the image: the widest bars end inside of it."""
        face = Face(fonts / "maker0" / "style1.ttf", 0)
        drawn = [rendered(face, character).astype(int) for character in CHARACTERS]
        frame = np.mean([np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).mean() for image in drawn])
        assert frame > np.mean([image.mean() for image in drawn]) + 10

    def test_what_a_font_lacks_is_none(self, fonts: Path, tmp_path: Path) -> None:
        font("Blank", {CHARACTERS[0]: []}).save(tmp_path / "blank.ttf")
        assert bitmap(Face(tmp_path / "blank.ttf", 0), CHARACTERS[0]) is None
        assert bitmap(Face(fonts / "maker0" / "style0.ttf", 0), CHARACTERS[0]) is not None


class TestParts:
    def test_the_trainer_reads_the_training_set(self, built: Path, fonts: Path) -> None:
        dataset = RecordIOFaces(built / "5k")
        parts = split(surveyed(fonts), HeldOut(0.4, 0.2))
        assert dataset.index.num_ids == len(parts.train)
        assert dataset.index.num_images == STYLES * len(parts.train)
        face = parts.train[1].faces[2]
        expected = rendered(face, parts.train[1].character)
        pixels = decode(dataset.encoded(STYLES + 2), SIZE)
        assert pixels.shape == (SIZE, SIZE, 3)
        assert np.abs(pixels - expected[:, :, None].astype(float)).mean() < 4  # JPEG
        assert (built / "5k" / "property").read_text() == f"{len(parts.train)},{SIZE},{SIZE}\n"

    def test_no_character_is_in_two_parts(self, fonts: Path) -> None:
        parts = split(surveyed(fonts), HeldOut(0.4, 0.2))
        characters = [identity.character for part in (parts.train, parts.test, parts.validation) for identity in part]
        assert sorted(characters) == list(CHARACTERS)
        assert 0.25 < len(parts.test) / len(characters) < 0.55
        assert 0.1 < len(parts.validation) / len(characters) < 0.36

    def test_who_is_held_out_does_not_depend_on_the_fonts(self, fonts: Path) -> None:
        """Catches the first N of a list that is as long as the fonts make it."""
        more = surveyed(fonts)
        keep = more.characters % 3 > 0
        fewer = Survey(more.faces, more.characters[keep], more.places[keep])
        test = {identity.character for identity in split(fewer, HeldOut(0.4, 0.2)).test}
        assert test == {identity.character for identity in split(more, HeldOut(0.4, 0.2)).test if identity.character % 3}

    def test_every_fold_is_balanced(self, built: Path) -> None:
        for name, count in ((TEST, PAIRS), (HARD, PAIRS), (VALIDATION, 20)):
            pairs = read_bin(built / name)
            assert pairs.num_pairs == count
            assert pairs.same.reshape(10, -1).sum(axis=1).tolist() == [count // 20] * 10
            assert pairs.images(SIZE).shape[1:] == (3, SIZE, SIZE)

    def test_only_the_impostors_are_harder(self, built: Path) -> None:
        files = [read_bin(built / name) for name in (TEST, HARD)]
        rows = [[(one.encoded[first], one.encoded[second]) for first, second in one.pairs] for one in files]
        assert rows[0][::2] == rows[1][::2]
        assert not set(rows[0][1::2]) & set(rows[1][1::2])

    def test_the_sheets_are_there(self, built: Path) -> None:
        names = {path.stem for path in (built / "sheets").glob("*.png")}
        assert names == {"identities", "genuine", "impostors", "impostors-hard"}


class TestPairs:
    def test_genuine_pairs_join_makers(self, fonts: Path) -> None:
        for first, second in genuine(split(surveyed(fonts), HeldOut(0.4, 0.2)).test, 100):
            assert first.character == second.character
            assert first.face.path.parent != second.face.path.parent

    def test_genuine_pairs_are_not_repeated_and_run_out(self, fonts: Path) -> None:
        identities = split(surveyed(fonts), HeldOut(0.4, 0.2)).test
        most = len(identities) * 4  # two makers of two fonts each
        assert len(set(genuine(identities, most))) == most
        with pytest.raises(SystemExit, match=r"the fonts give .*install more fonts"):
            genuine(identities, most + 1)

    def test_impostors_are_different_characters(self, fonts: Path) -> None:
        pairs = impostors(split(surveyed(fonts), HeldOut(0.4, 0.2)).test, 100)
        assert all(first.character != second.character for first, second in pairs)
        assert len({(first.character, second.character) for first, second in pairs}) == 100

    def test_hard_impostors_share_a_radical_and_are_close(self, fonts: Path) -> None:
        """Catches neighbours that are taken across the border of two radicals."""
        pairs = radical_impostors(split(surveyed(fonts), HeldOut(0.4, 0.2)).test, 20)
        assert all(radical(first.character) == radical(second.character) for first, second in pairs)
        assert all(0 < second.character - first.character < 16 for first, second in pairs)

    @pytest.mark.parametrize(("character", "number"), list(zip("一丨木林江語龠", (1, 2, 75, 75, 85, 149, 214), strict=True)))
    def test_radicals(self, character: str, number: int) -> None:
        """Numbers of the Kangxi dictionary."""
        assert radical(ord(character)) == number

    def test_each_others_nearest(self) -> None:
        """0 is nearest to 1, but 1 is nearer to 2."""
        angles = np.deg2rad([25, 10, 0, 90, 95], dtype=np.float32)
        centers = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        assert mutual_nearest(centers) == [(3, 4), (1, 2)]


class TestBuilding:
    def test_the_number_of_processes_changes_nothing(self, built: Path, fonts: Path, tmp_path: Path) -> None:
        """Catches a clock, an order of arrival or a random state in anything that is written."""
        document = build(tmp_path / "again", "5k", settings(fonts), 2, lambda _: None)
        assert digests(tmp_path / "again") == digests(built)
        assert document["digest"] == json.loads((built / "manifest.json").read_text())["digest"]
        assert document["parts"]["5k"]["sha256"] == digests(built)["5k/train.rec"]

    def test_what_is_there_is_not_made_again(
        self, built: Path, fonts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(building, "survey", lambda *_: pytest.fail("surveyed again"))
        monkeypatch.setattr(building, "write_pairs", lambda *_: pytest.fail("written again"))
        lines: list[str] = []
        build(built, "5k", settings(fonts), 1, lines.append)
        assert "5k: already there" in lines

    def test_a_part_that_was_cut_is_made_again(self, built: Path, fonts: Path) -> None:
        before = digests(built)
        (built / TEST).write_bytes((built / TEST).read_bytes()[:-7])
        build(built, "5k", settings(fonts), 1, lambda _: None)
        assert digests(built) == before

    def test_other_settings_want_another_folder(self, built: Path, fonts: Path) -> None:
        """Held-out characters of one set may be trained on in another."""
        with pytest.raises(SystemExit, match=r"made with other polarity.*another folder"):
            build(built, "5k", settings(fonts, polarity="mixed"), 1, lambda _: None)

    def test_too_few_characters_are_refused(self, fonts: Path, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match=r"every part needs 2 characters.*install more fonts"):
            build(tmp_path, "5k", settings(fonts, alphabet=(CHARACTERS[:3],)), 1, lambda _: None)

    def test_fonts_are_listed_with_their_licences(self, built: Path, fonts: Path) -> None:
        listed = json.loads((built / "manifest.json").read_text())["fonts"]
        assert [entry["face"] for entry in listed] == [f"style{style}.ttf#0" for style in range(STYLES)]
        assert {entry["licence"] for entry in listed} == {"made for a test"}

    def test_the_program(self, fonts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = {}
        monkeypatch.setattr(
            program, "build", lambda *arguments: seen.update(arguments=arguments) or {"parts": {}, "digest": ""}
        )
        options = ["--size", "25k", "--out", str(tmp_path), "--fonts", str(fonts), "--polarity", "mixed", "--processes", "1"]
        monkeypatch.setattr(sys, "argv", ["glyphs", *options])
        program.main()
        out, size, chosen, processes, _, model = seen["arguments"]
        assert (out, size, processes, model) == (tmp_path, "25k", 1, None)
        assert chosen.folders == [fonts]
        assert chosen.polarity == "mixed"


def test_impostors_that_a_model_confuses(built: Path, fonts: Path, tmp_path: Path) -> None:
    """Even an untrained network finds them more alike than those drawn at random; catches neighbours by place."""
    profile = small_profile()
    torch.manual_seed(0)
    encoder = build_encoder(profile.model, torch.device("cpu"))
    save_profile(profile, tmp_path / PROFILE_FILE)
    save_model(tmp_path / MODEL_FILE, encoder)
    for _ in range(2):  # another model may come: the file is made every time
        lines: list[str] = []
        build(built, "5k", settings(fonts), 1, lines.append, tmp_path)
        assert any(line.startswith(f"{NEAREST}: ") and "images of" in line for line in lines)
    files = [read_bin(built / name) for name in (TEST, NEAREST)]
    rows = [[(one.encoded[first], one.encoded[second]) for first, second in one.pairs] for one in files]
    assert rows[0][::2] == rows[1][::2]
    alike = []
    for one in files:
        embedded = embed(encoder, one.images(SIZE), batch_size=64, device=torch.device("cpu")).embeddings
        embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
        first, second = one.pairs[~one.same].T
        alike.append(float((embedded[first] * embedded[second]).sum(axis=1).mean()))
    assert alike[1] > alike[0]


def test_fonts_of_this_machine() -> None:
    """The rules hold on real fonts: common characters (of wood), drawn by some of what is installed."""
    files = [path for path in font_files(FOLDERS) if 2e6 < path.stat().st_size < 6e6][:12]  # Han characters need megabytes
    with ThreadPool(1) as pool:
        images = survey(files, [range(0x6728, 0x6738)], pool)
    if images.distinct_characters.size < 8:
        pytest.skip(f"three fonts of this machine hold {images.distinct_characters.size} of 16 Han characters")
    identity = images.identity(int(images.distinct_characters[0]))
    pictures = {rendered(face, identity.character).tobytes() for face in identity.faces}
    assert len(pictures) == len(identity.faces) >= 3
    assert all(entry["name"] for entry in described(identity.faces))
    assert any(0x6728 in block for block in HAN)


class TestPackages:
    """What `make glyphs` says when it may install nothing, or not everything."""

    @pytest.fixture
    def commands(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
        """A machine with apt-get, where fonts-a is installed, fonts-b can be, and fonts-c does not exist."""
        installed = {"fonts-a"}
        commands: list[tuple[str, ...]] = []

        def run(*command: str) -> bool:
            commands.append(command)
            names = {name for name in command if name.startswith("fonts-")}
            if command[:2] == ("apt-get", "install"):
                installed.update(names)
            return "fonts-c" not in names

        monkeypatch.setattr(packages, "_run", run)
        monkeypatch.setattr(packages, "_is_installed", installed.__contains__)
        monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(packages.os, "geteuid", lambda: 0)
        return commands

    def test_one_that_does_not_exist_stops_no_other(self, commands: list[tuple[str, ...]]) -> None:
        lines: list[str] = []
        packages.install(["fonts-a", "fonts-b", "fonts-c"], lines.append)
        assert [command[-1] for command in commands if command[1] == "install"] == ["fonts-b"]
        assert "1 font packages were installed" in lines
        assert lines[-1].endswith("could not be installed: fonts-c")

    def test_without_rights_the_command_is_named(
        self, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packages.os, "geteuid", lambda: 1000)
        lines: list[str] = []
        packages.install(["fonts-a", "fonts-b"], lines.append)
        assert commands == []
        assert lines[-1].endswith("--no-install-recommends fonts-b")

    def test_the_list_names_packages_once(self) -> None:
        assert len(set(packages.PACKAGES)) == len(packages.PACKAGES) > 50
        assert all(name.startswith("fonts-") for name in packages.PACKAGES)


def test_the_page_has_the_figures_that_were_recorded() -> None:
    """Catches a table that a newer build left behind."""
    page = (ROOT / "docs" / "glyphs.md").read_text(encoding="utf-8")
    recorded = json.loads((RESULTS / "glyphs.json").read_text(encoding="utf-8"))
    survey_row = f"| survey of the fonts | {recorded['survey']['characters']:,} | {recorded['survey']['images']:,} | | |"
    assert f"{survey_row} {recorded['survey']['seconds']:.0f} |" in page
    for name, part in recorded["parts"].items():
        keys = ("fewest images", "median images", "most images")
        counts = ", ".join(f"{part[key]:.0f}" for key in keys if key in part)
        row = f"| {name} | {part['identities']:,} | {part['images']:,} | {counts}"
        assert f"{row.rstrip()} | {part['bytes']:,} | {part['seconds']:.0f} |" in page
        assert f"`{part['sha256'][:8]}`" in page
    assert f"the {len(recorded['packages'])} packages" in page
