"""A text file may be in any encoding: it is told by its bytes, and plait says what it took it for."""

from __future__ import annotations

import numpy as np
import pytest

from plait.errors import TableError
from plait.table.files.encoding import to_utf8

TEXTS = {
    "de": "Größe Straße Bücher schöne Grüße Käse Müller Fußball über für Österreich Zürich gemütlich Äpfel",
    "fr": "café élève à la été français garçon où Noël cœur déjà très forêt hôtel être même les enfants",
    "en": "the “quoted” text — it’s nice – price don’t know",
    "ru": "Привет мир Москва хорошая книга большой город улица человек время сегодня очень красивый дом",
    "zh": "北京 上海 广州 深圳 中国 产品 很好 质量 价格 便宜 非常 喜欢 这个 不错 服务 态度 推荐 购买 名称",
    "zh-tw": "台北 高雄 產品 很好 品質 價格 便宜 非常 喜歡 這個 不錯 服務 態度 推薦 購買 名稱 城市 學校",
    "ja": "東京 大阪 商品 とても 良い カメラ ありがとう 価格 安い 名前 都市 学校 テスト データ です ます",
    "ko": "서울 부산 제품 매우 좋은 가격 이름 도시 학교 감사합니다 데이터 안녕하세요 배송 빠르고",
    "pl": "Łódź Kraków żółty źdźbło ćma święto piękny książka jeżeli można proszę",
}
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
OLD = [
    ("de", "cp1252"), ("de", "latin-1"), ("de", "mac_roman"), ("fr", "cp1252"), ("fr", "mac_roman"),
    ("en", "cp1252"), ("en", "mac_roman"), ("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "cp866"),
    ("zh", "gb18030"), ("zh-tw", "big5"), ("ja", "shift_jis"), ("ja", "euc_jp"), ("ja", "iso2022_jp"),
    ("ko", "euc_kr"), ("pl", "cp1250"), ("pl", "iso8859-2"),
]  # fmt: skip


def table(words: str, rows: int) -> str:
    rng = np.random.default_rng(1)
    lines = ["id,name,text"]
    for number in range(rows):
        lines.append(f"{number},{rng.choice(words.split())},{' '.join(rng.choice(words.split(), 4))}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("rows", [3, 300])
@pytest.mark.parametrize("encoding", UNICODE)
def test_unicode_in_every_form(encoding: str, rows: int) -> None:
    for words in TEXTS.values():
        text = table(words, rows)
        assert to_utf8(text.encode(encoding), "t.csv").data.decode() == text


@pytest.mark.parametrize("rows", [3, 300])
@pytest.mark.parametrize(("language", "encoding"), OLD)
def test_old_encodings_are_guessed_and_named(language: str, encoding: str, rows: int) -> None:
    text = table(TEXTS[language], rows)
    found = to_utf8(text.encode(encoding), "t.csv")
    assert found.data.decode() == text
    assert "t.csv is not UTF-8; it was read as" in found.notes[0]


@pytest.mark.parametrize(
    "word", ["Zoë", "José", "Müller", "naïve café", "Muñoz", "São", "El Niño", "Besançon"]
)
def test_one_or_two_accents_are_of_western_europe(word: str) -> None:
    text = table(word, 30)
    assert to_utf8(text.encode("cp1252"), "t.csv").data.decode() == text


def test_a_few_damaged_bytes_are_named_and_the_rest_stays_utf_8() -> None:
    found = to_utf8(b"a,b\n" + "äöü,1\n".encode() * 30 + b"\xff x,2\n", "t.csv")
    assert found.data.decode().endswith("äöü,1\n\ufffd x,2\n")
    assert found.notes == ("t.csv: 1 byte is not UTF-8 and was read as \ufffd; the first is in line 32",)


def test_text_that_its_mark_does_not_fit_is_refused() -> None:
    with pytest.raises(TableError, match="looks like utf-16-le, but byte"):
        to_utf8(b"\xff\xfea\x00b", "t.csv")
