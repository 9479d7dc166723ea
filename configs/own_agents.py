"""Functions for an agent stage, to start your own from: configs/agent.yaml calls them.

A function names what it wants: `task`, `label_row` (the Encord SDK's LabelRowV2, with its labels), `media` (files and
frames), `project`, `client`. Its other parameters are options of the config. It returns the name or uuid of a pathway,
or None: then the config says where the task goes. The changed label row is saved after the function returns and
before the task moves. If it raises, nothing is saved.
"""

from encord.objects import Classification, Object
from encord.objects.coordinates import BitmaskCoordinates, PointCoordinate, PolygonCoordinates


def by_title(task, begins="night_", pathway="Night team"):
    """Sends tasks whose title begins like this down another pathway."""
    return pathway if task.title.startswith(begins) else None


def caption(label_row, media, classification="Caption"):
    """Writes a text about the first frame into a text classification."""
    wanted = label_row.ontology_structure.get_child_by_title(classification, type_=Classification)
    if label_row.get_classification_instances(filter_ontology_classification=wanted):
        return  # somebody has written one
    instance = wanted.create_instance()
    instance.set_answer(describe(media.frame().array))
    instance.set_for_frames(frames=0, manual_annotation=False)
    label_row.add_classification_instance(instance)


def describe(picture):
    """Replaces a model: returns brightness and strongest colour of an image (H, W, 3) in words."""
    red, green, blue = picture.reshape(-1, 3).mean(axis=0)
    colours = {"red": red, "green": green, "blue": blue}
    light = "dark" if max(colours.values()) < 85 else "bright"
    return f"{light}, mostly {max(colours, key=colours.get)}"


def from_twin(label_row, client, twin_project):
    """Copies the objects of the same data in another project, onto objects of the same name."""
    twins = client.get_project(twin_project).list_label_rows_v2(data_hashes=[label_row.data_hash])
    if not twins or twins[0].label_hash is None:
        return
    twins[0].initialise_labels()
    for theirs in twins[0].get_object_instances():
        ours = label_row.ontology_structure.get_child_by_title(theirs.object_name, type_=Object).create_instance()
        for annotation in theirs.get_annotations():
            ours.set_for_frames(
                annotation.coordinates,
                frames=annotation.frame,
                confidence=annotation.confidence,
                manual_annotation=annotation.manual_annotation,
            )
        label_row.add_object_instance(ours)


def masks_to_polygons(label_row, objects):
    """Puts a polygon in the place of each bitmask; `objects` says which object's masks become which object."""
    import cv2

    for mask_name, polygon_name in objects.items():
        masks = label_row.ontology_structure.get_child_by_title(mask_name, type_=Object)
        polygons = label_row.ontology_structure.get_child_by_title(polygon_name, type_=Object)
        for instance in label_row.get_object_instances(filter_ontology_object=masks):
            outline = polygons.create_instance()
            for annotation in instance.get_annotations():
                assert isinstance(annotation.coordinates, BitmaskCoordinates)
                mask = annotation.coordinates.to_numpy_array().astype("uint8")
                contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                largest = max(contours, key=cv2.contourArea).reshape(-1, 2)
                height, width = mask.shape
                points = [PointCoordinate(x=(x + 0.5) / width, y=(y + 0.5) / height) for x, y in largest.tolist()]
                outline.set_for_frames(PolygonCoordinates(points), frames=annotation.frame, manual_annotation=False)
            label_row.remove_object(instance)
            label_row.add_object_instance(outline)
