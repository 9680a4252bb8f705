"""Any text of another killer becomes settings that read back, and nothing raises."""

from hypothesis import given
from hypothesis import strategies as st

from forestall.admin import directives
from forestall.admin.earlyoom_options import assignments, environment_file
from forestall.admin.peers import PEERS
from forestall.config.read import load_text

PIECES = st.sampled_from(
    [
        *("EARLYOOM_ARGS=", '"', "'", " ", "\n", "-m ", "10,5", "-s 100", "-M 1", "--prefer ", "("),
        *(
            "soft_threshold_min_mem = ",
            "hard_threshold_min_mem = ",
            "5 %",
            "9 M",
            "@BADNESS_ADJ_RE_",
        ),
        *("NAME", " 5 ", "///", "^x$", "[OOM]\n", "SwapUsedLimit=", "90%", "nan", "inf", "1e400%"),
        *(
            '{"rulesets": [',
            '{"name": "swap_free"}',
            "]}",
            "[",
            "{",
            "}",
            '"detectors": ',
            "//",
            "#",
        ),
    ]
)
TEXTS = st.text(max_size=200) | st.lists(PIECES, max_size=25).map("".join)
WORDS = st.text(st.characters(exclude_characters="'\"\\\n", codec="utf-8"), min_size=1, max_size=20)


@given(TEXTS)
def test_any_settings_of_a_peer_read_back_as_ours(text):
    for peer in PEERS:
        load_text(peer.read(text, "file").to_toml())


@given(st.lists(WORDS.filter(lambda word: word.isprintable()), max_size=8))
def test_words_for_earlyoom_come_back_as_they_went_in(words):
    assert assignments(environment_file(words))[0] == words


@given(st.text(max_size=60))
def test_any_size_is_one_of_systemds_or_refused(text):
    try:
        written = directives.read_size(text)
    except ValueError:
        return

    assert directives.read_size(written) == written


@given(st.text(max_size=200))
def test_only_what_we_wrote_is_taken_for_ours(text):
    settings = directives.parse(directives.MARK + text)

    assert settings is None or directives.render(settings, "service").startswith(directives.MARK)
