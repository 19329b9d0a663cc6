"""Names that every MicroPython has in its ROM, on an ESP32 as on Unix; and names of an ESP32 that we must not take.

tests/test_lean_build.py asks the interpreter that each of ROM_NAMES costs nothing. What the interpreter calls on
objects of any class (read, write, close, send, ioctl ...), and what its compiler treats in a way of its own (super,
const), is not among them.
"""

# Those that a .mpy file need not spell (py/makeqstrdata.py, static_qstr_list): two bytes there, whatever their length.
# Not those that the compiler itself puts in: BaseException (async with), AssertionError (assert).
_NUMBERED = """
id abs all any chr dir end int key len map ord pow sep str sum zip bool copy dict eval exec find hash iter join list
next open repr sort step stop type bytes clear count index lower range rfind round split strip tuple upper append
divmod extend format insert little locals lstrip object remove rindex rsplit rstrip sorted update OSError getattr
globals hasattr isalpha isdigit islower isspace isupper popitem replace reverse setattr EOFError Ellipsis KeyError
NoneType builtins bytecode callable endswith to_bytes Exception NameError TypeError bytearray IndexError SystemExit
ValueError from_bytes isinstance issubclass setdefault startswith ImportError LookupError MemoryError SyntaxError
classmethod micropython RuntimeError staticmethod GeneratorExit OverflowError StopIteration AttributeError
ArithmeticError IndentationError KeyboardInterrupt ZeroDivisionError NotImplementedError
"""
# MicroPython 1.29: built-in functions, types, errors, their methods, modules, and the frozen asyncio. Shortest first.
_SPELT = """
io pi PTR RAW add aes bin cos erf exp hex inf log max md5 min nan oct ps1 ps2 sin sub sys tan tau tls AUTO GZIP LONG
Lock Loop Task VOID ZLIB acos argv asin atan bind ceil core cosh dump erfc exit fabs fmod load lock log2 mkfs modf
pack path peek poll push rect recv seed sha1 sinh sqrt stat tanh time ARRAY SHORT acosh array asinh atan2 atanh chdir
clock crc32 deque drain dumps event expm1 float floor frexp funcs gamma input isinf isnan ldexp loads log10 match
mkdir mount phase polar rmdir slice stdin ticks trunc union IOBase NATIVE RingIO Server Stream VfsFat VfsRom accept
aclose atexit awrite buffer center choice decode digest enable encode filter gather getcwd getter gmtime is_set lgamma
listen locked mktime poller random rename search select sendto setter sha256 sizeof socket stderr stdout stream struct
system umount unlink unpack BytesIO IOQueue VfsLfs1 VfsLfs2 acquire collect compile complex connect decrypt degrees
delattr deleter disable discard encrypt fromhex heapify heappop hexlify isclose listdir maxsize modules out_buf
popleft radians randint release sendall statvfs time_ns uniform urandom version waiting LONGLONG StringIO calcsize
copysign cur_task exc_info fromkeys getvalue heappush isfinite issubset kbd_intr makefile mem_free mem_info platform
property recvfrom reversed schedule sleep_ms sleep_us sockaddr ticks_ms ticks_us wait_for byteorder enumerate
errorcode factorial frozenset heap_lock isenabled localtime mem_alloc opt_level pack_into partition randrange
stack_use threshold ticks_add ticks_cpu unhexlify SSLContext a2b_base64 appendleft b2a_base64 difference executable
isdisjoint issuperset memoryview namedtuple queue_read rpartition settimeout splitlines ticks_diff OrderedDict
create_task getaddrinfo getrandbits heap_unlock queue_write readexactly run_forever setblocking unpack_from
verify_mode wait_closed wait_for_ms wrap_socket StreamReader StreamWriter TimeoutError UnicodeError current_task
intersection start_server version_info
"""
ROM_NAMES = (*_NUMBERED.split(), *_SPELT.split())

# What the interpreter, asyncio, and an ESP32's machine, network, esp32 and bluetooth mean by these is not ours.
# tests/test_shorten.py holds what a build renames against the stubs of those modules.
_SPOKEN = """
active any args cause channel close config connect coro data deinit disconnect done duty e errno feed fileno flush freq
get gpio id info init ioctl irq items keys main mode name off on pend_throw pin pop print read read_uv readinto
readline readlines readfrom readfrom_into readfrom_mem reset reset_cause run s scan seek send set sleep start state
status stop tell throw toggle unique_id value values wait write writeto writeto_mem
"""
SPOKEN_OUTSIDE = frozenset(_SPOKEN.split())
