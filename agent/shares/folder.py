"""The folder of an image on a share: opens the files that the image names beside itself and remembers who they were.

Knows no format. Which links are followed is the share's own rule: none that leads out of it.
"""

from agent.shares.base import FileIdentity, Share, ShareFile
from agent.shares.errors import NotFound
from agent.shares.paths import join
from imaging.errors import FileMissing
from imaging.siblings import bare_name


class ShareFolder:
    """The files beside one image (`imaging.siblings.Siblings`); nothing is opened before it is asked for.

    The images close what they opened; after that only `first` may be asked.
    """

    def __init__(self, share: Share, image_path: str) -> None:
        """Take the folder of the image at `image_path`; the share stays its owner's."""
        self._share = share
        self._folder = image_path.rpartition("/")[0]
        self._files: dict[str, ShareFile] = {}
        self._first: dict[str, FileIdentity] = {}

    @property
    def first(self) -> dict[str, FileIdentity]:
        """The identity of every file that was opened, by name, when it was opened."""
        return self._first

    def open(self, name: str) -> ShareFile:
        """Open a file of the folder so that it cannot change while it is read.

        Raises:
            FileMissing, ReferenceRefused: As imaging expects it.
            AgentError: The share's, which may be worth another try.
        """
        path = join(self._folder, bare_name(name, what="reference"))
        try:
            file = self._share.open_read(path)
        except NotFound as err:
            raise FileMissing(str(err), path=path) from err
        try:
            self._first[name] = file.identity()
        except BaseException:
            file.close()
            raise
        self._files[name] = file
        return file

    def identities(self) -> dict[str, FileIdentity]:
        """Ask the share for the identity of each file now."""
        return {name: file.identity() for name, file in self._files.items()}
