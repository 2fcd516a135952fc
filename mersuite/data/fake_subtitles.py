"""What people say in made-up clips: Chinese and English sentences, each a translation of the other.

A sentence is an opener, a plain statement, a remark and a closing. The statement tells nothing. Each of the other three
phrases belongs to one of six groups, one an emotion, and is any phrase of its group with equal probability:

    P(group | emotion) = (1 - q) * share[group] + q * [group = emotion],    q = snr / (snr + 2)

Hence the three groups hold all that a sentence tells about the emotion, and nothing at snr=0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.data.fake_emotions import EMOTIONS, SHARES

NUM_PHRASES = 3
"""Phrases of a sentence that may tell something: opener, remark, closing."""
_HALF_SNR = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What somebody says.

    Attributes:
        groups: Which group each of the three phrases is from, indices in EMOTIONS.
        choices: Which phrase of its group each is, and last which statement; they tell nothing.
        chinese: The sentence.
        english: The same in English.
    """

    groups: tuple[int, ...]
    choices: tuple[int, ...]
    chinese: str
    english: str


def group_probabilities(snr: float) -> np.ndarray:
    """Gives P(group of a phrase | emotion): (emotion, group) float64."""
    own = snr / (snr + _HALF_SNR)
    num = len(EMOTIONS)
    probabilities: np.ndarray = (1 - own) * np.tile(SHARES, (num, 1)) + own * np.eye(num)
    return probabilities


def draw_groups(rng: np.random.Generator, emotion: np.ndarray | int, snr: float) -> np.ndarray:
    """Draws the groups of the phrases of sentences: (*emotion's shape, phrase) int64."""
    cumulative = group_probabilities(snr)[emotion].cumsum(axis=-1)[..., None, :-1]
    uniform = rng.random((*np.shape(emotion), NUM_PHRASES, 1))
    groups: np.ndarray = (uniform >= cumulative).sum(axis=-1)
    return groups


def groups_log_likelihood(groups: np.ndarray, snr: float) -> np.ndarray:
    """Gives log P(groups | emotion): (..., phrase) indices to (..., emotion) float64."""
    log_likelihood: np.ndarray = np.log(group_probabilities(snr)).T[groups].sum(axis=-2)
    return log_likelihood


def draw_sentence(rng: np.random.Generator, emotion: int, snr: float) -> Sentence:
    """Draws what a person says who feels an emotion."""
    groups = tuple(int(group) for group in draw_groups(rng, emotion, snr))
    columns = [column[EMOTIONS[group]] for column, group in zip(_COLUMNS, groups, strict=True)]
    choices = tuple(int(rng.integers(len(column))) for column in (*columns, _STATEMENTS))
    opener, remark, closing = (column[choice] for column, choice in zip(columns, choices, strict=False))
    statement = _STATEMENTS[choices[-1]]
    chinese, english = zip(opener, statement, remark, closing, strict=True)
    return Sentence(
        groups=groups,
        choices=choices,
        chinese="，".join(chinese) + "。",
        english=", ".join(english) + ".",
    )


_STATEMENTS: Sequence[tuple[str, str]] = (
    ("我刚从车站回来", "I just came back from the station"),
    ("他把钥匙放在桌上", "he put the keys on the table"),
    ("会议改到下午三点", "the meeting moved to three in the afternoon"),
    ("门口有一个箱子", "there is a box at the door"),
    ("姐姐买了两张票", "my sister bought two tickets"),
    ("楼下在修水管", "they are mending the pipes downstairs"),
    ("信是昨天寄来的", "the letter came yesterday"),
    ("她明天搬到城里", "she moves to town tomorrow"),
    ("老板看过那份表格", "the boss has seen that form"),
    ("我们坐七点的火车", "we take the train at seven"),
    ("窗户一直开着", "the window was open all along"),
    ("名单上有你的名字", "your name is on the list"),
)
_OPENERS: Mapping[str, Sequence[tuple[str, str]]] = {
    "neutral": (("嗯", "Well"), ("那个", "So"), ("好的", "All right"), ("对了", "By the way")),
    "angry": (("喂", "Hey"), ("够了", "Enough"), ("凭什么", "By what right"), ("你听着", "Now listen")),
    "happy": (("哈哈", "Haha"), ("太好了", "Great"), ("好极了", "Wonderful"), ("耶", "Yay")),
    "sad": (("唉", "Oh dear"), ("可惜", "What a pity"), ("没办法", "It cannot be helped"), ("算了", "Never mind")),
    "worried": (("糟了", "Uh oh"), ("怎么办", "What now"), ("不好说", "Hard to say"), ("等等", "Wait")),
    "surprise": (("天哪", "My goodness"), ("什么", "What"), ("啊", "Ah"), ("真的吗", "Really")),
}
_REMARKS: Mapping[str, Sequence[tuple[str, str]]] = {
    "neutral": (
        ("和平时一样", "the same as usual"),
        ("没什么特别的", "nothing special"),
        ("差不多就这样", "that is about it"),
        ("都按计划来", "it all goes by the plan"),
    ),
    "angry": (
        ("真是气死我了", "this drives me mad"),
        ("太过分了", "that goes too far"),
        ("我受够了", "I am fed up"),
        ("谁让你乱动的", "who told you to touch it"),
    ),
    "happy": (
        ("我高兴得不得了", "I am over the moon"),
        ("一切都很顺利", "everything went so well"),
        ("今天真开心", "what a lovely day"),
        ("笑得合不拢嘴", "I cannot stop smiling"),
    ),
    "sad": (
        ("心里空空的", "my heart feels empty"),
        ("眼泪止不住", "the tears will not stop"),
        ("我很难过", "I am so sad"),
        ("再也回不去了", "there is no way back"),
    ),
    "worried": (
        ("我心里没底", "I am not sure about this"),
        ("怕来不及", "we may be too late"),
        ("万一出事呢", "what if something happens"),
        ("一直没有消息", "there is still no news"),
    ),
    "surprise": (
        ("完全没想到", "I never expected that"),
        ("吓了我一跳", "it made me jump"),
        ("怎么可能", "how can that be"),
        ("简直不敢相信", "I can hardly believe it"),
    ),
}
_CLOSINGS: Mapping[str, Sequence[tuple[str, str]]] = {
    "neutral": (
        ("你看着办", "you decide"),
        ("等会儿再说", "we can talk later"),
        ("我先记下来", "I will note it down"),
        ("就这么定了", "let us leave it at that"),
    ),
    "angry": (
        ("马上给我说清楚", "explain yourself at once"),
        ("别再找借口", "no more excuses"),
        ("这笔账要算", "somebody will answer for it"),
        ("你给我出去", "get out of here"),
    ),
    "happy": (
        ("我们去庆祝吧", "let us celebrate"),
        ("晚上我请客", "dinner is on me"),
        ("谢谢你帮忙", "thank you for helping"),
        ("真想唱首歌", "I feel like singing"),
    ),
    "sad": (
        ("不想说话", "I do not want to talk"),
        ("让我一个人待会儿", "leave me alone for a while"),
        ("我好想他", "I miss him so much"),
        ("怎么会变成这样", "how did it come to this"),
    ),
    "worried": (
        ("你快打个电话", "please call quickly"),
        ("千万小心", "do be careful"),
        ("我睡不着觉", "I cannot sleep"),
        ("要不要去看看", "should we go and look"),
    ),
    "surprise": (
        ("你再说一遍", "say that again"),
        ("这也太突然了", "this is so sudden"),
        ("居然是真的", "so it is true after all"),
        ("快告诉我", "tell me right now"),
    ),
}
_COLUMNS = (_OPENERS, _REMARKS, _CLOSINGS)
