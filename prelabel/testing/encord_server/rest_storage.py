"""v2 endpoints of storage: items, their signed links, their client metadata."""

from __future__ import annotations

import json

from .context import Context
from .records import Json, StorageItem
from .rest_parts import iso
from .wire import ApiError, Request


def get_item(context: Context, request: Request, item: str) -> Json:
    return _item_json(context, _item(context, item), sign=request.flag("signUrl"))


def get_items(context: Context, request: Request) -> Json:
    """Items in the order asked for."""
    asked = request.json()
    items = [_item(context, uuid) for uuid in asked["itemUuids"]]
    return {"results": [_item_json(context, item, sign=asked.get("signUrls", False)) for item in items]}


def list_child_items(context: Context, request: Request, folder: str, item: str) -> Json:
    children = _item(context, item).children
    return {"results": [_item_json(context, child, sign=request.flag("signUrls")) for child in children]}


def update_item(context: Context, request: Request, folder: str, item: str) -> Json:
    return _patch(context, item, request.json())


def update_items(context: Context, request: Request) -> Json:
    patches = request.json()["itemPatches"]
    return {"results": [_patch(context, uuid, patch) for uuid, patch in patches.items()]}


def _patch(context: Context, item_uuid: str, patch: Json) -> Json:
    item = _item(context, item_uuid)
    item.name = patch.get("name", item.name)
    item.description = patch.get("description", item.description)
    item.client_metadata = patch.get("clientMetadata", item.client_metadata)
    item.last_edited_at = context.world.clock.now()
    return _item_json(context, item, sign=False)


def _item(context: Context, item_uuid: str) -> StorageItem:
    if item_uuid not in context.world.items:
        raise ApiError(404, f"no storage item {item_uuid}")
    return context.world.items[item_uuid]


def _item_json(context: Context, item: StorageItem, *, sign: bool) -> Json:
    facts = item.facts
    return {
        "uuid": item.uuid,
        "parent": item.folder_uuid,
        "itemType": item.item_type,
        "name": item.name,
        "description": item.description,
        "clientMetadata": json.dumps(item.client_metadata),
        "owner": "owner@example.com",
        "createdAt": iso(item.created_at),
        "lastEditedAt": iso(item.last_edited_at),
        "isTombstone": False,
        "isPlaceholder": False,
        "backedDataUnitsCount": 1,
        "storageLocation": "encord",
        "integrationHash": None,
        "url": None,
        "signedUrl": context.item_link(item) if sign else None,
        "fileSize": item.file_size,
        "mimeType": item.mime_type,
        "duration": facts.duration_seconds,
        "fps": facts.fps,
        "height": facts.height,
        "width": facts.width,
        "dicomInstanceUid": None,
        "dicomStudyUid": None,
        "dicomSeriesUid": None,
        "frameCount": facts.num_frames if item.item_type in ("video", "imageSequence") else None,
        "audioSampleRate": None,
        "audioBitDepth": None,
        "audioCodec": None,
        "audioNumChannels": None,
    }
