"""Names that every MicroPython has in its ROM, on an ESP32 as on Unix; and names of an ESP32 that we must not take.

tests/test_lean_build.py asks the interpreter that each of ROM_NAMES costs nothing. What the interpreter calls on
objects of any class (read, write, close, send, ioctl ...), and what its compiler treats in a way of its own (super,
const), is not among them.
"""

# MicroPython 1.29: built-in functions, types, errors, their methods, modules, and the frozen asyncio. Shortest first.
_NAMES = """
id io pi PTR RAW abs add aes all any bin chr cos dir erf exp hex inf int len log map max md5 min nan oct ord pow ps1
ps2 sep sin str sub sum sys tan tau tls zip AUTO GZIP LONG Lock Loop Task VOID ZLIB acos argv asin atan bind bool ceil
copy core cosh dict dump erfc eval exec exit fabs find fmod hash iter join list load lock log2 mkfs modf next open pack
path peek poll push rect recv repr seed sha1 sinh sort sqrt stat stop tanh time type ARRAY SHORT acosh array asinh atan2
atanh bytes chdir clear clock count crc32 deque drain dumps event expm1 float floor frexp funcs gamma index input
isinf isnan ldexp loads log10 lower match mkdir mount phase polar range rfind rmdir round slice split stdin strip
ticks trunc tuple union upper IOBase NATIVE RingIO Server Stream VfsFat VfsRom accept aclose append atexit awrite buffer
center choice decode digest divmod enable encode extend filter format gather getcwd getter gmtime insert is_set lgamma
listen locals locked lstrip mktime object poller random remove rename rindex rsplit rstrip search select sendto setter
sha256 sizeof socket sorted stderr stdout stream struct system umount unlink unpack update BytesIO IOQueue OSError
VfsLfs1 VfsLfs2 acquire collect compile complex connect decrypt degrees delattr deleter disable discard encrypt fromhex
getattr globals hasattr heapify heappop hexlify isalpha isclose isdigit islower isspace isupper listdir maxsize modules
out_buf popitem popleft radians randint release replace reverse sendall setattr statvfs time_ns uniform urandom version
waiting KeyError LONGLONG StringIO calcsize callable copysign cur_task endswith exc_info fromkeys getvalue heappush
isfinite issubset kbd_intr makefile mem_free mem_info platform property recvfrom reversed schedule sleep_ms sleep_us
sockaddr ticks_ms ticks_us to_bytes wait_for NameError TypeError bytearray byteorder enumerate errorcode factorial
frozenset heap_lock isenabled localtime mem_alloc opt_level pack_into partition randrange stack_use threshold ticks_add
ticks_cpu unhexlify IndexError SSLContext SystemExit ValueError a2b_base64 appendleft b2a_base64 difference executable
from_bytes isdisjoint isinstance issubclass issuperset memoryview namedtuple queue_read rpartition setdefault settimeout
splitlines startswith ticks_diff ImportError LookupError MemoryError OrderedDict SyntaxError classmethod create_task
getaddrinfo getrandbits heap_unlock queue_write readexactly run_forever setblocking unpack_from verify_mode wait_closed
wait_for_ms wrap_socket RuntimeError StreamReader StreamWriter TimeoutError UnicodeError current_task intersection
start_server staticmethod version_info
"""
ROM_NAMES = tuple(_NAMES.split())

# What the interpreter, asyncio, and an ESP32's machine, network, esp32 and bluetooth mean by these is not ours.
# tests/test_shorten.py holds what a build renames against the stubs of those modules.
_SPOKEN = """
active any args cause channel close config connect coro data deinit disconnect done duty e errno feed fileno flush freq
get gpio id info init ioctl irq items keys main mode name off on pend_throw pin pop print read read_uv readinto
readline readlines readfrom readfrom_into readfrom_mem reset reset_cause run s scan seek send set sleep start state
status stop tell throw toggle unique_id value values wait write writeto writeto_mem
"""
SPOKEN_OUTSIDE = frozenset(_SPOKEN.split())
