"""Decoding a stream from its packets, and what happens where it is damaged."""
import warnings
from collections.abc import Callable, Iterator

from models.entropy.stream import StreamError
from util.coding.bitstream import Packet
from util.coding.reader import Damaged, StreamReader, Truncated
from util.coding.session import DecodedFrame, Session
from util.errors import InputError


class StreamWarning(UserWarning):
    """Something about a stream that does not keep it from being decoded."""


def warn(message: str) -> None:
    """The default way to tell the user."""
    warnings.warn(message, StreamWarning, stacklevel=2)


class DecodedStream:
    """The frames of a stream, to be iterated over once. Messages count frames from 1.

    Attributes:
        header: of the stream.
        damaged: whether anything was lost so far (`keep_going`; otherwise an error tells).
    """

    def __init__(self, reader: StreamReader, session: Session, keep_going: bool, report: Callable[[str], None]):
        self.header = reader.header
        self.damaged = False
        self._reader, self._session = reader, session
        self._keep_going, self._report = keep_going, report
        self._next = 0                                             # the number of the next frame
        self._all_match = True

    def __iter__(self) -> Iterator[DecodedFrame]:
        """The frames, each as soon as its bytes have come.

        Raises:
            StreamError: at the first damage, unless told to keep going.
        """
        over = False
        while not over:
            decoded = None
            try:
                packet = self._reader.next_packet(self._session.bounds)
                if isinstance(packet, int):
                    over = True
                    self._check_end(packet)
                elif self._is_due(packet):
                    decoded = self._session.decode(packet)
                    self._next = packet.number + 1
            except InputError as error:
                over = self._damage(error) or over
            if decoded is not None:
                self._compare(decoded)
                yield decoded

    def _is_due(self, packet: Packet) -> bool:
        """Whether to decode this frame now. Frames between it and the last one must not be missing."""
        if packet.number < self._next:
            self._lose(f"frame {packet.number + 1} comes again after frame {self._next}")
            return False
        if packet.intra:
            if packet.number > self._next:
                self._lose(self._missing(packet.number))
            return True
        if not self._session.has_reference():
            if self._keep_going:
                return False                                       # reported where the next I-frame comes
            raise StreamError("its reference frame is missing; get the whole file")
        if packet.number > self._next:
            raise StreamError(self._missing(packet.number))
        return True

    def _check_end(self, count: int) -> None:
        if count > self._next:
            self._lose(self._missing(count))
        elif count < self._next:
            self._lose(f"the end marker counts {count} frames, but there were {self._next}")

    def _missing(self, until: int) -> str:
        lost = f"frame {until} is" if until == self._next + 1 else f"frames {self._next + 1} to {until} are"
        return f"{lost} missing"

    def _lose(self, message: str) -> None:
        """Something is lost, but what comes next can be decoded."""
        if not self._keep_going:
            raise StreamError(f"{message}: the stream was changed after it was written; get a fresh copy")
        self.damaged = True
        self._report(message)

    def _damage(self, error: InputError) -> bool:
        """Raise, or get ready for the next I-frame. Returns whether the stream is over."""
        if isinstance(error, Truncated):
            message = (f"the stream ends after {self._next} complete frames, before its end marker: "
                       "it was cut off; get the whole file")
        elif isinstance(error, Damaged):
            message = f"frame {self._next + 1}: {error}: the stream is damaged; get a fresh copy"
        else:
            message = f"frame {self._next + 1}: {error}"
        if not self._keep_going:
            raise StreamError(message) from None
        self.damaged = True
        self._report(message)
        self._session.forget()
        if isinstance(error, Damaged):
            try:
                self._reader.resync()
            except Truncated as end:
                self._report(f"after frame {self._next}, {end}")
                return True
        return isinstance(error, Truncated)

    def _compare(self, decoded: DecodedFrame) -> None:
        if self._all_match and not decoded.matches:
            self._all_match = False
            self._report(f"frame {decoded.number + 1}, and perhaps later ones, differ slightly from the encoder's: "
                         f"{self._session.cause()}")
