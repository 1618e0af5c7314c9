"""Messages of worker processes: datapoints as arrays where nothing is lost by it, and exceptions with tracebacks."""
import pickle
import traceback
from typing import Any, NoReturn

import numpy as np
import torch

from dataflows.errors import WorkerTraceback


def pickled(error: BaseException) -> bytes:
    """The exception, its traceback and its notes, for `raise_again`; in place of one that does not pickle, a
    RuntimeError with its name, message and notes."""
    text, notes = "".join(traceback.format_exception(error)), list(getattr(error, "__notes__", ()))
    try:
        pickled = pickle.dumps((error, text, notes))
        pickle.loads(pickled)
        return pickled
    except Exception:
        summary = "".join(traceback.format_exception_only(type(error), error)).rstrip()
        return pickle.dumps((RuntimeError(f"a worker process raised {summary}"), text, []))


def raise_again(content: bytes) -> NoReturn:
    """Raises what `pickled` gave, with the worker's traceback as its cause."""
    error, text, notes = pickle.loads(content)
    if notes:
        error.__notes__ = notes  # an exception that pickles in a way of its own has lost them
    raise error from WorkerTraceback(text)


def unpicklable(what: str, error: Exception, remedy: str) -> TypeError:
    return TypeError(f"worker_type='process' sends {what}, and this one does not pickle: {error}. {remedy}")


def packed(component: Any) -> tuple[str, Any, tuple[int, ...] | None]:
    """(how it travels, a component of a datapoint, how to order its axes again): as a contiguous array if it can be."""
    if isinstance(component, list):
        tensors = [torch.from_numpy(item) if _is_numeric(item) else item for item in component]
        if not all(_is_plain(item) for item in tensors):
            try:  # not left to tensorpack: tensors within other things would go as handles, each an open file
                return "pickled", pickle.dumps(component, pickle.HIGHEST_PROTOCOL), None
            except Exception as error:
                raise unpicklable("what the transform returns to the training process", error,
                                   "Return arrays or tensors, or use threads") from error
        if len({(tensor.shape, tensor.dtype) for tensor in tensors}) > 1:
            return "as it is", [tensor.numpy() for tensor in tensors], None
        component = torch.stack(tensors).numpy()
    if isinstance(component, np.ndarray) and component.ndim == 4 and not component.flags.c_contiguous:
        return "as it is", component.transpose(0, 2, 3, 1), (0, 3, 1, 2)
    return "as it is", component, None


def _is_numeric(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.dtype in _DTYPES


def _is_plain(item: Any) -> bool:
    """Whether an item is a tensor that numpy can hold without loss."""
    return (type(item) is torch.Tensor and item.dtype in _DTYPES.values() and item.device.type == "cpu"
            and item.layout == torch.strided and not (item.requires_grad or item.is_conj() or item.is_neg()))


_DTYPES = {np.dtype(name): getattr(torch, name) for name in (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128")}
