"""AQL, as much of it as we send: text to a tree. Source: ArangoDB's AQL documentation, "Syntax" and "High-level
operations". A keyword is no attribute's name unless it stands in backticks.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.arango_double.failures import syntax

_WORDS = """
    AGGREGATE ALL AND ANY ASC COLLECT DESC DISTINCT FALSE FILTER FOR GRAPH IN INBOUND INSERT INTO LET LIKE LIMIT NONE
    NOT NULL OR OUTBOUND REMOVE REPLACE RETURN SHORTEST_PATH SORT TRUE UPDATE UPSERT WINDOW WITH
"""
KEYWORDS = frozenset(_WORDS.split())
_TOKEN = re.compile(
    r"\s+|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<number>\d+)|(?P<bind>@@?\w+)|(?P<quoted>`[^`]+`)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>==|!=|<=|>=|\.\.|[<>(){}\[\],.:])"
)
DIRECTIONS = ("OUTBOUND", "INBOUND")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "IN")


@dataclass(frozen=True)
class Node:
    """kind: what it is; value: what it is named or holds; parts: below it, by name."""

    kind: str
    value: Any = None
    parts: dict[str, Any] = field(default_factory=dict)


class Parser:
    def __init__(self, query: str) -> None:
        self.tokens = list(_tokens(query))
        self.at = 0

    def query(self) -> list[Node]:
        """Return the operations in their order."""
        operations = []
        while self.kind != "end":
            operations.append(self.operation())
        if not operations or operations[-1].kind not in {"RETURN", "INSERT", "UPDATE", "REMOVE", "UPSERT"}:
            raise syntax("unexpected end of query")
        return operations

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def value(self) -> str:
        return self.tokens[self.at][1]

    def is_word(self, *words: str) -> bool:
        return self.kind == "name" and self.value.upper() in words

    def is_sign(self, *signs: str) -> bool:
        return self.kind == "sign" and self.value in signs

    def take(self) -> str:
        value = self.value
        self.at += 1
        return value

    def word(self, word: str) -> None:
        if not self.is_word(word):
            raise syntax(f"unexpected {self.value!r}, expecting {word}")
        self.at += 1

    def sign(self, sign: str) -> None:
        if not self.is_sign(sign):
            raise syntax(f"unexpected {self.value!r}, expecting {sign!r}")
        self.at += 1

    def name(self) -> str:
        if self.kind == "quoted":
            return self.take().strip("`")
        if self.kind != "name" or self.value.upper() in KEYWORDS:
            raise syntax(f"unexpected {self.value!r}, expecting an identifier")
        return self.take()

    def operation(self) -> Node:
        if self.kind != "name":
            raise syntax(f"unexpected {self.value!r}")
        word = self.take().upper()
        operation = {
            "FOR": self.loop,
            "FILTER": lambda: Node("FILTER", self.expression()),
            "LIMIT": lambda: Node("LIMIT", self.expression()),
            "SORT": self.sort,
            "RETURN": self.returned,
            "INSERT": lambda: self.write("INSERT", "INTO", document=self.expression()),
            "UPDATE": self.update,
            "REMOVE": lambda: self.write("REMOVE", "IN", document=self.postfix()),
            "UPSERT": self.upsert,
        }.get(word)
        if operation is None:
            raise syntax(f"unexpected {word!r}")
        return operation()

    def loop(self) -> Node:
        names = [self.name()]
        while self.is_sign(","):
            self.take()
            names.append(self.name())
        self.word("IN")
        source = self.range()
        if not self.is_word(*DIRECTIONS):
            if len(names) > 1:
                raise syntax("a loop over a list has one variable")
            return Node("FOR", names, {"source": source})
        direction = self.take().upper()
        start = self.postfix()
        self.word("GRAPH")
        graph = self.postfix()
        options = Node("object", {})
        if self.is_word("OPTIONS"):
            self.take()
            options = self.postfix()
        parts = {"depths": source, "direction": direction, "start": start, "graph": graph, "options": options}
        return Node("TRAVERSE", names, parts)

    def sort(self) -> Node:
        keys = [self.expression()]
        while self.is_sign(","):
            self.take()
            keys.append(self.expression())
        descending = False
        if self.is_word("ASC", "DESC"):
            descending = self.take().upper() == "DESC"
        return Node("SORT", keys, {"descending": descending})

    def returned(self) -> Node:
        distinct = self.is_word("DISTINCT")
        if distinct:
            self.take()
        return Node("RETURN", self.expression(), {"distinct": distinct})

    def write(self, kind: str, before: str, **parts: Node) -> Node:
        self.word(before)
        return Node(kind, self.collection(), parts)

    def update(self) -> Node:
        document = self.postfix()
        self.word("WITH")
        # No expression: the IN after it would be taken for an operator.
        changes = self.postfix()
        return self.write("UPDATE", "IN", document=document, changes=changes)

    def upsert(self) -> Node:
        search = self.postfix()
        self.word("INSERT")
        document = self.postfix()
        self.word("UPDATE")
        changes = self.postfix()
        return self.write("UPSERT", "IN", search=search, document=document, changes=changes)

    def collection(self) -> Node:
        return Node("collection", self.take()) if self.kind == "bind" else Node("collection", self.name())

    def expression(self) -> Node:
        left = self.conjunction()
        while self.is_word("OR"):
            self.take()
            left = Node("OR", None, {"left": left, "right": self.conjunction()})
        return left

    def conjunction(self) -> Node:
        left = self.comparison()
        while self.is_word("AND"):
            self.take()
            left = Node("AND", None, {"left": left, "right": self.comparison()})
        return left

    def comparison(self) -> Node:
        left = self.range()
        if self.is_sign(*COMPARISONS) or self.is_word("IN"):
            operator = self.take().upper()
            return Node("compare", operator, {"left": left, "right": self.range()})
        return left

    def range(self) -> Node:
        left = self.postfix()
        if self.is_sign(".."):
            self.take()
            return Node("range", None, {"left": left, "right": self.postfix()})
        return left

    def postfix(self) -> Node:
        node = self.primary()
        while self.is_sign("."):
            self.take()
            node = Node("attribute", self.name(), {"of": node})
        return node

    def primary(self) -> Node:
        if self.kind == "text":
            return Node("literal", re.sub(r"\\(.)", r"\1", self.take()[1:-1]))
        if self.kind == "number":
            return Node("literal", int(self.take()))
        if self.kind == "bind":
            return Node("bind", self.take())
        if self.is_word("NULL", "TRUE", "FALSE"):
            return Node("literal", {"NULL": None, "TRUE": True, "FALSE": False}[self.take().upper()])
        if self.is_sign("("):
            self.take()
            inner = self.expression()
            self.sign(")")
            return inner
        if self.is_sign("["):
            return Node("list", self.several("[", "]", self.expression))
        if self.is_sign("{"):
            return Node("object", dict(self.several("{", "}", self.pair)))
        name = self.name()
        if self.is_sign("("):
            return Node("call", name.upper(), {"arguments": self.several("(", ")", self.expression)})
        return Node("variable", name)

    def pair(self) -> tuple[str, Node]:
        name = self.take()[1:-1] if self.kind == "text" else self.name()
        self.sign(":")
        return name, self.expression()

    def several(self, opening: str, closing: str, one: Any) -> list[Any]:
        self.sign(opening)
        found = []
        while not self.is_sign(closing):
            found.append(one())
            if not self.is_sign(closing):
                self.sign(",")
        self.sign(closing)
        return found


def _tokens(query: str) -> Any:
    at = 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise syntax(f"unexpected {query[at]!r}")
        if found.lastgroup:
            yield found.lastgroup, found[0]
        at = found.end()
    yield "end", "end of query"
