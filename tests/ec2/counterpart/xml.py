"""Small tools on element trees without namespaces, and the envelope of an EC2 answer."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import UTC, datetime

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
Element = ET.Element


def parse(body: bytes) -> Element:
    """The tree of an answer, names without their namespace."""
    root = ET.fromstring(body)
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    return root


def put(parent: Element, path: str, text: str) -> Element:
    """Set the text at a path, making the elements on the way."""
    node = parent
    for name in path.split("/"):
        found = node.find(name)
        node = found if found is not None else ET.SubElement(node, name)
    node.text = text
    return node


def fresh(parent: Element, name: str) -> Element:
    """An empty child in place of the one of that name."""
    old = parent.find(name)
    if old is None:
        return ET.SubElement(parent, name)
    old.clear()
    return old


def item(**values: str) -> Element:
    made = Element("item")
    for name, text in values.items():
        ET.SubElement(made, name).text = text
    return made


def tag_set(parent: Element, tags: dict[str, str]) -> None:
    fresh(parent, "tagSet").extend(item(key=key, value=value) for key, value in tags.items())


def answer(action: str, children: Iterable[Element]) -> bytes:
    """``<RunInstancesResponse>`` around the children."""
    root = Element(f"{action}Response", xmlns=NAMESPACE)
    ET.SubElement(root, "requestId").text = str(uuid.uuid4())
    root.extend(children)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)


def leaf(name: str, text: str) -> Element:
    made = Element(name)
    made.text = text
    return made


def branch(name: str, children: Iterable[Element]) -> Element:
    made = Element(name)
    made.extend(children)
    return made


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
