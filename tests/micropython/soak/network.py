# A station that is always connected; sockets are the host's own.
STA_IF = 0


class WLAN:
    def __init__(self, interface_id=0):
        pass

    def active(self, is_active=None):
        return True

    def connect(self, ssid=None, key=None):
        pass

    def disconnect(self):
        pass

    def isconnected(self):
        return True

    def status(self, param=None):
        return 1010
