"""What chapters stand on: the profile in the environment, tables, ranges, and listings that name their source."""

import os
import pkgutil
import textwrap

import pytest
import torch
from scipy import stats

import ncbook
from ncbook import book

ABOUT = dict(EPOCHS="epochs", NAMES="data sets")
SIZES = dict(quick=dict(EPOCHS=1, NAMES=("a",)), book=dict(EPOCHS=2, NAMES=("b",)), paper=dict(EPOCHS=3, NAMES=None))


@pytest.fixture
def shown(monkeypatch):
    """What is shown in a cell: pairs (object, metadata)."""
    outputs = []
    monkeypatch.setattr(book, "display", lambda each, metadata=None: outputs.append((each, metadata)))
    return outputs


def test_a_mean_gap_has_a_t_interval():
    gaps = [0.1, -0.2, 0.6, 0.3]
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert book.mean_gap(gaps) == f"+0.20 ± {(high - low) / 2:.2f}"
    assert book.mean_gap([-1, -3], ".1g").startswith("-2 ± ")
    with pytest.raises(ValueError, match="differences"):
        book.mean_gap([1.0])


def test_gaussian_numbers_depend_on_their_seed_alone():
    first = book.gaussian(3, 2, seed=4)
    assert first.dtype == torch.float64 and torch.equal(first, book.gaussian(3, 2, seed=4))
    assert not torch.equal(first, book.gaussian(3, 2, seed=5))
    assert abs(book.gaussian(100_000, dtype=torch.float32).std() - 1) < 0.01


def test_numbers_by_hand_stand_beside_those_of_the_package(shown):
    book.compare({"nc1": 0.5, "nc3": 0.0}, nc1=torch.tensor(0.5), nc3=1e-13)
    assert "| `nc1` | 0.5 | 0.5 |" in shown[0][0].data
    with pytest.raises(ValueError, match="nc1"):
        book.compare({"nc1": 0.5}, nc1=0.50001)


@pytest.mark.parametrize("name, values", [("quick", (1, ("a",))), ("paper", (3, None)), (None, (2, ("b",)))])
def test_the_environment_chooses_the_profile(monkeypatch, shown, name, values):
    monkeypatch.delenv("NCBOOK_PROFILE")
    if name:
        monkeypatch.setenv("NCBOOK_PROFILE", name)
    assert book.profile(ABOUT, **SIZES) == (name or "book", *values)
    text = shown[0][0].data
    assert f"**{name or 'book'}**" in text and text.count("**") == 2 and "| epochs | 1 | 2 | 3 |" in text


def test_what_a_profile_changes_can_be_said_in_words(shown):
    paper = dict(EPOCHS=2000, NAMES=("a", "c"))
    book.profile(dict(EPOCHS="epochs of training", NAMES="data sets"), **SIZES | dict(paper=paper))
    text = shown[0][0].data.replace("\N{NO-BREAK SPACE}", " ")
    assert "| epochs of training | 1 | 2 | 2,000 |" in text and "| data sets | a | b | a, c |" in text


def test_profiles_that_do_not_exist_or_do_not_match_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="same keys"):
        book.profile(ABOUT, **SIZES | dict(paper=dict(EPOCHS=3)))
    with pytest.raises(ValueError, match="about"):
        book.profile(dict(SEED="networks"), **SIZES)
    monkeypatch.setenv("NCBOOK_PROFILE", "bok")
    with pytest.raises(ValueError, match="NCBOOK_PROFILE must be one of 'quick', 'book', 'paper', got 'bok'"):
        book.profile(ABOUT, **SIZES)


def test_a_table_is_markdown_with_numbers_to_the_right(shown):
    book.table(["name", "what", "value"], [["a|b", "text", 0.123456], ["c", 2, "1.50"]], text=2)
    assert shown[0][0].data.splitlines() == [
        "| name | what | value |", "| --- | --- | ---: |", r"| a\|b | text | 0.123 |", "| c | 2 | 1.50 |"]
    values = 1e-5, "3.1e-02 (1e-02 to 2e+03)", "-0.5", "0e+00", "by-by"
    book.table(["a-b", "n"], [["`c-d 1e-3`", value] for value in values])
    assert [line.split(" | ")[1][:-2] for line in shown[1][0].data.splitlines()[2:]] == [
        "10⁻⁵", "3.1·10⁻²\N{NO-BREAK SPACE}(10⁻²\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}2·10³)", "−0.5", "0", "by-by"]
    assert shown[1][0].data.count("`c-d 1e-3`") == 5
    with pytest.raises(ValueError, match="rows must have 2 cells"):
        book.table(["a", "b"], [[1]])


def test_medians_come_with_their_range():
    assert book.median_range([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert book.median_range(iter([0.5, 0.25]), ".1%") == "37.5% (25.0% to 50.0%)"
    assert book.median_range([2.0, 2.0], ".2f") == "2.00"


def test_a_listing_is_the_source_and_names_it(shown):
    book.show_code(ncbook.polar_factor, ncbook.NearestETFHead.forward)
    (code, metadata), = shown
    assert metadata == {"ncbook": {"source": ["ncbook.etf:polar_factor", "ncbook.heads:NearestETFHead.forward"]}}
    assert repr(code) == book.source(*map(pkgutil.resolve_name, metadata["ncbook"]["source"]))
    assert '"""' not in repr(code) and "Raises" not in repr(code)
    first, second = repr(code).split("\n\ndef forward(self")
    assert first.startswith("def polar_factor(") and second


def test_a_part_of_a_listing_runs_from_one_line_to_another(shown):
    whole = book.source(ncbook.polar_factor)
    book.show_code(ncbook.polar_factor, part=("check_finite", "return"))
    (code, metadata), = shown
    assert metadata["ncbook"]["part"] == ["check_finite", "return"]
    assert textwrap.indent(repr(code), "    ") in whole and len(repr(code)) < len(whole)
    for part in (("return", "def polar_factor"), ("nothing of it", "return")):
        with pytest.raises(ValueError, match="part"):
            book.source(ncbook.polar_factor, part=part)


def test_few_images_leaves_all_others_to_test_on():
    few, full = book.few_images("digits", 100, 3), ncbook.load_dataset("digits")
    images = torch.cat((few.train_inputs, few.test_inputs)).flatten(1)
    everything = torch.cat((full.train_inputs, full.test_inputs)).flatten(1)
    assert len(few.train_targets) == 100 and few.train_targets.bincount().min() >= 9
    assert torch.equal(images.unique(dim=0), everything.unique(dim=0)) and len(images) == len(everything)
    assert not torch.equal(few.train_inputs, book.few_images("digits", 100, 4).train_inputs)


def test_what_runs_in_parallel_is_what_would_run_here(monkeypatch):
    def trained(seed):
        torch.set_num_threads(1)
        trainer = ncbook.Trainer(ncbook.Recipe(dataset="gaussians", backbone="mlp", device="cpu", seed=seed))
        trainer.step()
        return os.getpid(), next(trainer.backbone.parameters()).detach().numpy()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("NCBOOK_PROFILE", "book")
    apart = book.in_parallel(lambda seed: trained(seed), [(0,), (1,)])
    monkeypatch.setenv("NCBOOK_PROFILE", "quick")
    here = book.in_parallel(trained, [(0,), (1,)])
    assert all(pid == os.getpid() for pid, _ in here) and all(pid != os.getpid() for pid, _ in apart)
    assert all((ours == theirs).all() for (_, ours), (_, theirs) in zip(here, apart, strict=True))
    assert not (here[0][1] == here[1][1]).all()
