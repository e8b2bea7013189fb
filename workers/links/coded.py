"""A link that compresses activations: a codec around the two ends of a link of any kind."""

from __future__ import annotations

from torch import Tensor

from pipeline.stage.codecs import Codec, build_codec
from workers.links.around import AroundReceiver, AroundSender
from workers.links.base import LinkMismatch, Receiver, Sender
from workers.links.messages import Header, Message, TensorSpec


def wire_spec(codec: Codec) -> TensorSpec:
    """Specification of the inner link, which carries the encoded tensors."""
    return TensorSpec(codec.wire_shape, codec.wire_dtype)


def encoded_spec(codec: str, spec: TensorSpec) -> TensorSpec:
    """Of what a link for `spec` carries: encoded tensors, or the tensors themselves where there is no codec."""
    coder = build_codec(codec, spec.shape, spec.dtype)
    return spec if coder is None else wire_spec(coder)


class CodedSender(AroundSender):
    """Encodes activations and sends them.

    A message may be smaller than the link's largest along any axis, if the codec can restore its shape.

    Args:
        inner: sends the encoded tensors; opened for `wire_spec(codec)`.
        codec: of the activations.
    """

    def __init__(self, inner: Sender, codec: Codec) -> None:
        super().__init__(inner, TensorSpec(codec.shape, codec.dtype))
        self._codec = codec

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`; `bytes_sent` counts encoded bytes."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        if not self._codec.restores(tuple(tensor.shape)):
            found = f"a tensor {list(tensor.shape)} does not fit the link, which was opened for {self.spec}"
            raise LinkMismatch(f"{self.address}: {found}. With this codec smaller maps must be square")
        encoded = self._codec.encode(tensor.detach())
        self._meter("computing")
        self._pass_on(header, encoded, timeout)


class CodedReceiver(AroundReceiver):
    """Receives and decodes what a `CodedSender` sent.

    Args:
        inner: receives the encoded tensors; opened for `wire_spec(codec)`.
        codec: of the activations.
    """

    def __init__(self, inner: Receiver, codec: Codec) -> None:
        super().__init__(inner, TensorSpec(codec.shape, codec.dtype))
        self._codec = codec

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`; the tensor has the dtype of the link and memory of its own."""
        message = self._inner.recv(timeout)
        decoded = self._codec.decode(message.tensor)
        self._meter("computing")
        return Message(message.header, decoded)
