"""Coding: exact round trips, sizes near the entropy, and hostile payloads that are refused."""

import hashlib
import heapq
import sys
import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.compression import coding
from zoo.compression.coding import bits, context, huffman, relative
from zoo.compression.coding.table import LONGEST, Table, read_table, write_table
from zoo.errors import CompressionError, MissingPackageError, UnknownNameError
from zoo.strict import RefusedError

NEED_CONSTRICTION = ("range", "context")
constriction_only = pytest.mark.skipif(find_spec("constriction") is None, reason="constriction is not installed")
CODERS = [pytest.param(coder, marks=constriction_only if coder in NEED_CONSTRICTION else ()) for coder in coding.CODERS]


def draw(shape: tuple[int, ...], alphabet: int, skew: float, seed: int) -> np.ndarray:
    """Symbols that are the rarer the larger: skew 0 is uniform, 5 almost only zeros."""
    chance = np.random.default_rng(seed).random(shape)
    return (chance ** (1 + 3 * skew) * alphabet).astype(np.int64)


def bordered(rows: int) -> np.ndarray:
    """A mask [rows, 784] as pruning leaves it in a first layer for 28 x 28 images: empty borders, uneven neurons."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]
    inside = ((abs(y - 13.5) < 10) & (abs(x - 13.5) < 10)).ravel()
    return (generator.random((rows, 784)) < 0.16 * inside * generator.uniform(0.2, 1.8, (rows, 1))).astype(np.int64)


def symbols_of(data: bytes, shape: tuple[int, ...], alphabet: int, coder: str) -> np.ndarray | None:
    """The symbols of a payload; None where it is refused."""
    try:
        return coding.decode(data, shape, alphabet, coder)
    except RefusedError:
        return None


def fits(symbols: np.ndarray, shape: tuple[int, ...], alphabet: int) -> bool:
    """Whether symbols are of the shape and within the alphabet."""
    within = symbols.min(initial=0) >= 0 and symbols.max(initial=0) < alphabet
    return symbols.shape == shape and symbols.dtype == np.int64 and bool(within)


@pytest.mark.parametrize("coder", CODERS)
@given(
    rows=st.integers(0, 40),
    columns=st.integers(0, 60),
    alphabet=st.sampled_from([1, 2, 3, 5, 16, 31, 64, 300, 65536]),
    skew=st.floats(0, 5),
    flat=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_what_is_encoded_is_decoded(
    coder: str, rows: int, columns: int, alphabet: int, skew: float, flat: bool, seed: int
) -> None:
    symbols = draw((rows * columns,) if flat else (rows, columns), alphabet, skew, seed)
    data = coding.encode(symbols, alphabet, coder)
    decoded = coding.decode(data, symbols.shape, alphabet, coder)
    assert decoded.dtype == np.int64
    np.testing.assert_array_equal(decoded, symbols)
    if data:
        assert symbols_of(data + b"\0", symbols.shape, alphabet, coder) is None
        assert symbols_of(data + b"\1", symbols.shape, alphabet, coder) is None


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("symbols", [np.zeros(50, int), np.full((5, 9), 7), np.arange(8), np.array([[3]])], ids=str)
def test_extreme_arrays_are_decoded(coder: str, symbols: np.ndarray) -> None:
    data = coding.encode(symbols, 8, coder)
    np.testing.assert_array_equal(coding.decode(data, symbols.shape, 8, coder), symbols)


@pytest.mark.parametrize("coder", CODERS)
def test_a_tensor_of_four_dimensions_is_read_as_the_matrix_that_was_written(coder: str) -> None:
    symbols = draw((12, 3, 3, 3), 9, 1.0, 0)
    data = coding.encode(symbols.reshape(12, -1), 9, coder)
    np.testing.assert_array_equal(coding.decode(data, symbols.shape, 9, coder), symbols)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize(("shape", "alphabet", "skew"), [((6, 9), 5, 1.5), ((40,), 32, 0.0), ((4, 10), 2, 0.5)])
def test_every_prefix_and_every_bit_flip_is_refused_or_valid(
    coder: str, shape: tuple[int, ...], alphabet: int, skew: float
) -> None:
    data = coding.encode(draw(shape, alphabet, skew, 3), alphabet, coder)
    for size in range(len(data)):
        symbols = symbols_of(data[:size], shape, alphabet, coder)
        assert symbols is None or coder in NEED_CONSTRICTION, size  # a shorter range code may stand for other symbols
        assert symbols is None or fits(symbols, shape, alphabet), size
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        symbols = symbols_of(bytes(flipped), shape, alphabet, coder)
        assert symbols is None or fits(symbols, shape, alphabet), bit


@pytest.mark.parametrize("coder", CODERS)
@given(data=st.binary(max_size=60), alphabet=st.sampled_from([2, 3, 40, 65536]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_or_valid(coder: str, data: bytes, alphabet: int) -> None:
    symbols = symbols_of(data, (7, 5), alphabet, coder)
    assert symbols is None or fits(symbols, (7, 5), alphabet)


@pytest.mark.parametrize("coder", CODERS)
def test_a_large_hostile_payload_takes_little_memory(coder: str) -> None:
    noise = np.random.default_rng(1).integers(1, 256, 1 << 20, np.uint8).tobytes()
    real = coding.encode(draw((10, 10), 8, 1.0, 0), 8, coder)
    for data in (noise, real + noise, b"\x0f" + noise, b"\x03\x64\x64" + noise):
        tracemalloc.start()
        assert symbols_of(data, (10, 10), 8, coder) is None
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


@pytest.mark.parametrize(
    ("coder", "bits_over"), [("huffman", 1.0), pytest.param("range", 0.02, marks=constriction_only)]
)
@pytest.mark.parametrize("alphabet", [2, 32, 1000])
@pytest.mark.parametrize("skew", [0.0, 0.7, 4.0])
def test_the_size_is_near_the_entropy(coder: str, bits_over: float, alphabet: int, skew: float) -> None:
    symbols = draw((100_000,), alphabet, skew, 0)
    size = 8 * len(coding.encode(symbols, alphabet, coder))
    learnt = 12 * alphabet  # bits that it takes to tell, or learn, one count of each letter
    entropy = coding.entropy_bits(symbols)
    assert entropy <= size + learnt
    assert size <= entropy + bits_over * len(symbols) + learnt


def test_entropy_of_known_symbols() -> None:
    assert coding.entropy_bits(np.array([0, 1, 2, 3])) == pytest.approx(8)
    assert coding.entropy_bits(np.array([5, 5, 5])) == 0
    assert coding.entropy_bits(np.array([0, 0, 0, 1])) == pytest.approx(4 * 0.811278, abs=1e-4)
    assert coding.entropy_bits(np.array([], int)) == 0


def test_fixed_takes_the_bits_of_the_alphabet() -> None:
    assert bits.pack(np.array([1, 2, 3]), 2) == bytes([0b01101100])
    assert len(coding.encode(draw((1000,), 33, 0.0, 0), 33, "fixed")) == 6 * 1000 / 8
    wide = np.array([0, 2**32 - 1, 12345])
    np.testing.assert_array_equal(coding.decode(coding.encode(wide, 2**32, "fixed"), (3,), 2**32, "fixed"), wide)


@pytest.mark.parametrize("count", [1, 8, (1 << 16) - 1, (1 << 16) + 3])
@pytest.mark.parametrize("width", [0, 1, 7, 32])
def test_packed_numbers_of_any_count_are_unpacked(count: int, width: int) -> None:
    values = np.random.default_rng(width).integers(0, 1 << width, count)
    np.testing.assert_array_equal(bits.unpack(bits.pack(values, width), count, width), values)


def test_code_lengths_of_a_known_code() -> None:
    np.testing.assert_array_equal(coding.code_lengths(np.array([45, 13, 12, 16, 9, 5])), [1, 3, 3, 3, 4, 4])
    np.testing.assert_array_equal(coding.code_lengths(np.array([0, 7, 0])), [0, 0, 0])
    np.testing.assert_array_equal(coding.code_lengths(np.array([0, 7, 9])), [0, 1, 1])


@given(counts=st.lists(st.integers(0, 10**6), min_size=2, max_size=70))
@settings(deadline=None)
def test_code_lengths_are_those_of_huffmans_tree(counts: list[int]) -> None:
    heap = sorted(count for count in counts if count)
    total = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    lengths = coding.code_lengths(np.array(counts))
    cost = int((lengths * counts).sum())
    assert cost >= total
    if lengths.max() < LONGEST:  # the limit was not felt
        assert cost == total


def test_no_code_is_longer_than_16_bits_and_the_code_space_is_full() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = coding.code_lengths(np.array(fibonacci))
    assert lengths.max() == LONGEST
    assert (1 << (LONGEST - lengths)).sum() == 1 << LONGEST
    assert (np.diff(lengths) <= 0).all()
    assert (coding.code_lengths(np.ones(1 << LONGEST, int)) == LONGEST).all()


def test_codes_are_canonical() -> None:
    table = Table(np.arange(8), np.array([3, 3, 3, 3, 3, 2, 4, 4]))  # the example of RFC 1951, section 3.2.2
    expected = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]
    np.testing.assert_array_equal(table.codes(), expected)


def test_a_table_takes_few_bytes() -> None:
    lengths = coding.code_lengths((1000 * 0.85 ** np.arange(32)).astype(int))
    written = write_table(Table(np.arange(32), lengths))
    assert len(written) <= 11
    table, end = read_table(written + b"rest", 32)
    assert end == len(written)
    np.testing.assert_array_equal(table.lengths, lengths)


def test_a_sparse_table_of_a_large_alphabet_is_read_back() -> None:
    symbols = np.sort(np.random.default_rng(0).choice(65536, 200, replace=False))
    table = Table(symbols, coding.code_lengths(np.arange(1, 201)))
    written = write_table(table)
    assert len(written) < 2.2 * 200
    np.testing.assert_array_equal(read_table(written, 65536)[0].symbols, symbols)
    with pytest.raises(RefusedError, match="outside the alphabet"):
        read_table(written, int(symbols[-1]))


def as_bytes(text: str) -> bytes:
    text = text.replace(" ", "")
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0000 00010 1 1 01", "more codes than fit"),  # of 2, 2, 2 and 1 bits
        ("0000 00001 1 0001", "padding bits are set"),
        ("0000 00010 1 1", "cut off"),  # a quarter of the code space is unused
        ("0000 10001", "a code of 17 bits"),
        ("0000 00001 01", "a code of 0 bits"),
        ("0001 1 00001 1", "cut off"),
        ("0001 00101 00001", "outside the alphabet"),  # it begins at the symbol 4 of 0..3
        ("0001 00000000000000000000000000000000000000001", "cut off"),
        ("000", "cut off"),
    ],
)
def test_impossible_tables_are_refused(text: str, found: str) -> None:
    with pytest.raises(RefusedError, match=found):
        read_table(as_bytes(text), 4)


def test_a_stream_of_many_lanes_is_decoded_and_its_lengths_must_add_up() -> None:
    symbols = draw((150_001,), 32, 0.7, 0)
    data = huffman.encode(symbols, 32)
    table, at = read_table(data, 32)
    lanes = huffman._lanes(len(symbols), table)
    assert lanes >= huffman.FEWEST_LANES
    lengths, end = huffman._read_lengths(data, at, lanes)
    assert end - at < 0.001 * len(data)
    np.testing.assert_array_equal(huffman.decode(data, len(symbols), 32), symbols)
    for change in ([1, -1], [-3, 3], [0, 1]):
        wrong = lengths.copy()
        wrong[3:5] += change
        with pytest.raises(RefusedError):
            huffman.decode(data[:at] + huffman._write_lengths(wrong) + data[end:], len(symbols), 32)
    for count in (len(symbols) - 1, len(symbols) + 1):
        with pytest.raises(RefusedError):
            huffman.decode(data, count, 32)


@pytest.mark.parametrize("coder", ["fixed", "huffman"])
def test_set_padding_bits_are_refused(coder: str) -> None:
    symbols = np.array([0, 1, 1, 2, 0, 0])  # 12 bits, and 9 bits by Huffman
    data = bytearray(coding.encode(symbols, 3, coder))
    data[-1] ^= 1
    with pytest.raises(RefusedError, match="padding"):
        coding.decode(bytes(data), symbols.shape, 3, coder)


def test_a_single_symbol_costs_no_bits() -> None:
    assert len(coding.encode(np.full(10**6, 9), 32, "huffman")) <= 2
    assert coding.encode(np.zeros(10**6, int), 1, "huffman") == b""


def test_gaps_are_those_of_deep_compression() -> None:
    symbols = np.zeros(16, int)
    symbols[[1, 4, 15]] = [5, 6, 7]  # figure 2 of the paper, 3 bits: a filler zero stands between 4 and 15
    found, values = relative.gaps(symbols, 3)
    assert found.tolist() == [1, 2, 7, 2]
    assert values.tolist() == [5, 6, 0, 7]


def test_the_best_width_is_chosen_and_kept() -> None:
    dense, sparse = draw((5000,), 8, 0.3, 0), draw((5000,), 8, 100.0, 0)
    assert coding.encode(dense, 8, "relative")[0] < coding.encode(sparse, 8, "relative")[0]


@pytest.mark.parametrize(
    ("found", "values", "count"),
    [([1, 2], [3, 4], 4), ([1, 3], [3, 0], 9), ([1, 2, 0], [3, 0, 1], 9)],
    ids=["past the end", "a zero at the end", "a short filler"],
)
def test_wrong_gaps_are_refused(found: list[int], values: list[int], count: int) -> None:
    coded = huffman.encode(np.array(found), 4)
    data = bytes([2, len(found), len(coded)]) + coded + huffman.encode(np.array(values), 8)
    with pytest.raises(RefusedError, match="gap"):
        relative.decode(data, count, 8)


@constriction_only
def test_context_gains_on_a_mask_with_borders() -> None:
    mask = bordered(200)
    share = mask.mean()
    independent = mask.size * -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    data = coding.encode(mask, 2, "context")
    assert len(data) < 0.8 * independent
    np.testing.assert_array_equal(coding.decode(data, mask.shape, 2, "context"), mask)


@constriction_only
def test_context_finds_the_better_way_to_walk() -> None:
    mask = bordered(50)
    data = coding.encode(mask, 2, "context")
    turned = coding.encode(np.ascontiguousarray(mask.T), 2, "context")
    assert len(turned) == len(data)
    assert {data[0] & 1, turned[0] & 1} == {0, 1}


@constriction_only
def test_context_costs_little_where_there_is_no_structure() -> None:
    symbols = draw((100, 100), 8, 2.0, 0)
    assert len(coding.encode(symbols, 8, "context")) < 1.02 * len(coding.encode(symbols, 8, "range"))


@constriction_only
def test_a_wide_walk_is_cut_into_few_steps() -> None:
    symbols = draw((1, 3 * context.MOST_STEPS + 5), 4, 1.0, 0)
    np.testing.assert_array_equal(
        coding.decode(coding.encode(symbols, 4, "context"), symbols.shape, 4, "context"), symbols
    )


def test_the_tables_of_the_logistic_do_not_hang_on_a_last_digit() -> None:
    x = np.arange(-context._FAR, context._FAR + 1) / context._UNIT
    p = np.arange(4096)
    for exact in (65536 / (1 + np.exp(-x)), context._UNIT * np.log((p + 0.5) / (4095.5 - p))):
        assert np.abs(exact % 1 - 0.5).min() > 1e-9


@pytest.mark.parametrize(
    ("coder", "digest"),
    [
        ("fixed", "a7ac3cca1c001ed8"),
        ("huffman", "bdca2a88751828f4"),
        ("relative", "a456cab69413208b"),
        pytest.param("range", "0ab0ef91d05acd40", marks=constriction_only),
        pytest.param("context", "bc9b63994aeba8fe", marks=constriction_only),
    ],
)
def test_payloads_of_this_version_stay_as_they_are(coder: str, digest: str) -> None:
    place = np.arange(150 * 500)
    symbols = (place * place // 7 % 11 * (place % 20 % 3 == 0)).reshape(150, 500)
    assert hashlib.sha256(coding.encode(symbols, 11, coder)).hexdigest()[:16] == digest


@constriction_only
def test_range_learns_few_letters_of_a_large_alphabet() -> None:
    symbols = np.random.default_rng(0).choice([5, 800, 60_000], 3000)
    assert len(coding.encode(symbols, 65536, "range")) < coding.entropy_bits(symbols) / 8 + 40


@constriction_only
def test_constriction_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for coder in NEED_CONSTRICTION:
        coding.decode(coding.encode(draw((9, 9), 5, 1.0, 0), 5, coder), (9, 9), 5, coder)
    assert capfd.readouterr() == ("", "")


def test_without_constriction_the_others_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    symbols = draw((20, 30), 8, 2.0, 0)
    for coder in NEED_CONSTRICTION:
        with pytest.raises(MissingPackageError, match=r"zoo\[coding\]"):
            coding.encode(symbols, 8, coder)
    coder, data = coding.best(symbols, 8)
    assert coder in ("fixed", "huffman", "relative")
    np.testing.assert_array_equal(coding.decode(data, symbols.shape, 8, coder), symbols)


def test_best_is_the_smallest() -> None:
    for skew in (0.0, 1.0, 5.0):
        symbols = draw((50, 40), 16, skew, 0)
        coder, data = coding.best(symbols, 16)
        names = [name for name in coding.CODERS if name not in NEED_CONSTRICTION or find_spec("constriction")]
        sizes = {name: len(coding.encode(symbols, 16, name)) for name in names}
        assert len(data) == sizes[coder] == min(sizes.values())
    assert coding.best(symbols, 1 << 20)[0] == "fixed"
    assert coding.best(symbols, 16, ("huffman",))[0] == "huffman"


@constriction_only
@pytest.mark.parametrize(("spread", "worth"), [(0.4, False), (0.9, True)])
def test_context_has_to_save_a_fiftieth(spread: float, worth: bool) -> None:
    rng = np.random.default_rng(0)
    shares = 0.5 + spread * (rng.random((60, 1)) - 0.5)  # of ones in each row
    symbols = (rng.random((60, 400)) < shares) * rng.integers(1, 8, (60, 400))
    sizes = {name: len(coding.encode(symbols, 8, name)) for name in coding.CODERS}
    assert min(sizes, key=sizes.__getitem__) == "context"
    coder, data = coding.best(symbols, 8)
    assert coder == ("context" if worth else "range")
    assert len(data) == sizes[coder]


def test_wrong_use_is_told() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'huffman'"):
        coding.encode(np.array([1]), 2, "hufman")
    with pytest.raises(UnknownNameError):
        coding.decode(b"", (1,), 2, "zip")
    with pytest.raises(UnknownNameError):
        coding.best(np.array([1]), 2, ("zip",))
    with pytest.raises(CompressionError, match="not from 0 to 1"):
        coding.encode(np.array([0, 2]), 2, "fixed")
    with pytest.raises(CompressionError, match="not from 0 to 1"):
        coding.encode(np.array([-1, 1]), 2, "huffman")
    with pytest.raises(CompressionError, match="different symbols"):
        coding.encode(np.array([1]), 65537, "huffman")
    with pytest.raises(CompressionError, match="whole numbers"):
        coding.encode(np.array([1.0]), 2, "fixed")
    with pytest.raises(CompressionError, match="none of huffman"):
        coding.best(np.array([1]), 65537, ("huffman",))
    with pytest.raises(RefusedError, match="an alphabet of"):
        coding.decode(b"", (1,), 65537, "range")
