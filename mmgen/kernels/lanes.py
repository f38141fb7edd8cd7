"""Thirty-two bytes at a time: operations on rows of ink whose meaning never changes.

LLVM does not find these forms by itself in a plain loop over bytes, since it must allow for
aliasing and negative indices: 5 times slower on a Xeon with AVX-512. It lowers a vector to what the
CPU has, so the result is the same everywhere. They take addresses and check nothing; without a
compiler (NUMBA_DISABLE_JIT) they do not exist, and the plain loops of `picture.py` serve.
"""

from numba.extending import intrinsic

LANES = 32
CELLS = 16  # at a time


def _vector(ir, builder, address):
    """Load LANES bytes, and the pointer they came from."""
    pointer = builder.inttoptr(address, ir.VectorType(ir.IntType(8), LANES).as_pointer())
    return builder.load(pointer, align=1), pointer


def _splat(ir, builder, value, bits, lanes=LANES):
    """Fill every lane with one number."""
    kind = ir.VectorType(ir.IntType(bits), lanes)
    number = builder.trunc(value, ir.IntType(bits)) if value.type.width > bits else value
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def _combination(choose):
    """Make an intrinsic that combines LANES bytes at one address with those at another."""

    @intrinsic
    def combine(_context, target, source):
        from llvmlite import ir
        from numba import types

        def emit(context, builder, _signature, addresses):
            old, into = _vector(ir, builder, addresses[0])
            new, _ = _vector(ir, builder, addresses[1])
            builder.store(choose(ir, builder, old, new), into, align=1)
            return context.get_dummy_value()

        return types.void(types.uintp, types.uintp), emit

    return combine


def _brighter(_ir, builder, old, new):
    return builder.select(builder.icmp_unsigned(">", old, new), old, new)


def _clipped_sum(ir, builder, old, new):
    total = builder.add(old, new)
    has_wrapped = builder.icmp_unsigned("<", total, old)
    return builder.select(has_wrapped, ir.Constant(old.type, [255] * LANES), total)


def _ink_in_front(ir, builder, old, new):
    return builder.select(_has_ink(ir, builder, new), new, old)


def _has_ink(ir, builder, vector):
    return builder.icmp_unsigned("!=", vector, ir.Constant(vector.type, None))


def _new(_ir, _builder, _old, new):
    return new


copy_to = _combination(_new)
raise_to = _combination(_brighter)
add_to = _combination(_clipped_sum)
put_on = _combination(_ink_in_front)


@intrinsic
def ink_mask(_context, source):
    """Return a uint32 with a bit for each of LANES bytes that has ink."""
    from llvmlite import ir
    from numba import types

    def emit(_context, builder, _signature, addresses):
        ink, _ = _vector(ir, builder, addresses[0])
        return builder.bitcast(_has_ink(ir, builder, ink), ir.IntType(LANES))

    return types.uint32(types.uintp), emit


@intrinsic
def hiding_mask(_context, mine, theirs, wins_ties):
    """Return a bit for each byte where theirs owns the place of my ink: it is brighter."""
    from llvmlite import ir
    from numba import types

    def emit(_context, builder, _signature, arguments):
        mine, _ = _vector(ir, builder, arguments[0])
        theirs, _ = _vector(ir, builder, arguments[1])
        wins_ties = builder.icmp_unsigned("!=", arguments[2], arguments[2].type(0))
        brighter = builder.icmp_unsigned(">", theirs, mine)
        as_bright = builder.icmp_unsigned(">=", theirs, mine)
        owns = builder.select(wins_ties, as_bright, brighter)
        return builder.bitcast(builder.and_(owns, _has_ink(ir, builder, mine)), ir.IntType(LANES))

    return types.uint32(types.uintp, types.uintp, types.boolean), emit


@intrinsic
def owned_mask(_context, ink, owner, number):
    """Return a bit for each byte of ink whose place in `owner` holds the number."""
    from llvmlite import ir
    from numba import types

    def emit(_context, builder, _signature, arguments):
        ink, _ = _vector(ir, builder, arguments[0])
        owner, _ = _vector(ir, builder, arguments[1])
        is_owned = builder.icmp_unsigned("==", owner, _splat(ir, builder, arguments[2], 8))
        return builder.bitcast(
            builder.and_(is_owned, _has_ink(ir, builder, ink)), ir.IntType(LANES)
        )

    return types.uint32(types.uintp, types.uintp, types.int64), emit


@intrinsic
def claim_where_brighter(_context, ink, brightest, owner, number):
    """Where ink is brighter than the brightest, it is now that, and `owner` holds the number."""
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, arguments):
        ink, _ = _vector(ir, builder, arguments[0])
        brightest, into_brightest = _vector(ir, builder, arguments[1])
        owner, into_owner = _vector(ir, builder, arguments[2])
        wins = builder.icmp_unsigned(">", ink, brightest)
        builder.store(builder.select(wins, ink, brightest), into_brightest, align=1)
        number = _splat(ir, builder, arguments[3], 8)
        builder.store(builder.select(wins, number, owner), into_owner, align=1)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.uintp, types.int64), emit


@intrinsic
def claim_ink(_context, ink, owner, number):
    """Where there is ink `owner` now holds the number."""
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, arguments):
        ink, _ = _vector(ir, builder, arguments[0])
        owner, into = _vector(ir, builder, arguments[1])
        number = _splat(ir, builder, arguments[2], 8)
        builder.store(builder.select(_has_ink(ir, builder, ink), number, owner), into, align=1)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.int64), emit


@intrinsic
def weigh_rows(_context, target, upper, lower, weights, light, length):
    """Blend two rows and their right neighbours by four weights of 22 bits in all, and light them.

    target  address of LANES bytes; those from `length` on become 0      upper, lower  addresses of
    LANES + 1 bytes       weights  four uint32: upper, its neighbour, lower, its neighbour
    """
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, arguments):
        target, upper, lower, weights, light, length = arguments
        wide = ir.VectorType(ir.IntType(32), LANES)

        def number(value):
            return ir.Constant(wide, [value] * LANES)

        total = number(0)
        one = upper.type(1)
        places = (upper, builder.add(upper, one), lower, builder.add(lower, one))
        for number_of_place, place in enumerate(places):
            weight = builder.extract_value(weights, number_of_place)
            ink = builder.zext(_vector(ir, builder, place)[0], wide)
            total = builder.add(total, builder.mul(ink, _splat(ir, builder, weight, 32)))
        lit = builder.mul(builder.lshr(total, number(14)), _splat(ir, builder, light, 32))
        lit = builder.lshr(builder.add(lit, number(1 << 19)), number(20))
        lit = builder.select(builder.icmp_unsigned("<", lit, number(255)), lit, number(255))
        lanes = ir.Constant(wide, list(range(LANES)))
        is_inside = builder.icmp_signed("<", lanes, _splat(ir, builder, length, 32))
        lit = builder.select(is_inside, lit, number(0))
        narrow = builder.trunc(lit, ir.VectorType(ir.IntType(8), LANES))
        _, into = _vector(ir, builder, target)
        builder.store(narrow, into, align=1)
        return context.get_dummy_value()

    four = types.UniTuple(types.int64, 4)
    signature = types.void(*(types.uintp, types.uintp, types.uintp, four, types.int64, types.int64))
    return signature, emit


def _gather(ir, builder, base, index):
    """Load the uint32 of each index: in one instruction where the CPU has it, else one by one."""
    from numba.core.cgutils import get_or_insert_function

    kind, lanes = index.type, index.type.count
    pointers = _point_at(ir, builder, builder.inttoptr(base, kind.element.as_pointer()), index)
    mask = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [1] * lanes)
    alignment = ir.IntType(32)
    signature = ir.FunctionType(kind, [pointers.type, alignment, mask.type, kind])
    name = f"llvm.masked.gather.v{lanes}i32.v{lanes}p0"
    gather = get_or_insert_function(builder.module, signature, name)
    return builder.call(gather, [pointers, alignment(4), mask, ir.Constant(kind, None)])


def _point_at(ir, builder, base, index):
    """Point at each index of an array of uint32.

    llvmlite's own `gep` takes no vectors. Sums of addresses would mean the same, but of those LLVM
    makes two gathers of 64-bit addresses, and a dozen instructions more.
    """

    class Pointers(ir.Instruction):
        def descr(self, buf):
            operands = ", ".join(f"{one.type} {one.get_reference()}" for one in self.operands)
            buf.append(f"getelementptr {index.type.element}, {operands}\n")

    kind = ir.VectorType(base.type, index.type.count)
    pointers = Pointers(builder.block, kind, "getelementptr", [base, index])
    builder._insert(pointers)
    return pointers


@intrinsic
def weigh_cells(_context, target, cells, row_cells, place, step, light, length):
    """Weigh the four pixels of the cell at each of CELLS places, and light them.

    target  address of CELLS bytes; those from `length` on become 0
    cells   address of the uint32 cell (0, 0), which has others before it; `row_cells` make a row
    place, step  (y, x) int64 of the first place, in units of 2**-32 px with half a unit of its
            last 21 bits added, and how far the next one is
    """
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, arguments):
        target, cells, row_cells, place, step, light, length = arguments
        wide = ir.VectorType(ir.IntType(32), CELLS)

        def number(value):
            return ir.Constant(wide, [value] * CELLS)

        def spread(value):
            return _splat(ir, builder, value, 32, CELLS)

        lanes = ir.Constant(wide, list(range(CELLS)))
        cell, weight = [], []
        for axis in range(2):
            # place + lane * step would need 64 bits; its upper and lower parts do not.
            first, far = (builder.extract_value(pair, axis) for pair in (place, step))
            at, rest, by, rest_by = (
                spread(part)
                for value in (first, far)
                for part in (
                    builder.ashr(value, value.type(21)),
                    builder.and_(value, value.type((1 << 21) - 1)),
                )
            )
            rest = builder.add(rest, builder.mul(lanes, rest_by))
            at = builder.add(at, builder.mul(lanes, by))
            at = builder.add(at, builder.lshr(rest, number(21)))
            cell.append(builder.ashr(at, number(11)))
            weight.append(builder.and_(at, number(2047)))
        index = builder.add(builder.mul(cell[0], spread(row_cells)), cell[1])
        is_inside = builder.icmp_signed("<", lanes, spread(length))
        index = builder.select(is_inside, index, number(0))
        four = _gather(ir, builder, cells, index)
        ink = [
            builder.and_(builder.lshr(four, number(shift)), number(255)) for shift in (0, 8, 16, 24)
        ]
        down, right = weight
        left = builder.sub(number(2048), right)
        upper = builder.add(builder.mul(left, ink[0]), builder.mul(right, ink[1]))
        lower = builder.add(builder.mul(left, ink[2]), builder.mul(right, ink[3]))
        rise = builder.mul(down, builder.sub(lower, upper))
        total = builder.add(builder.shl(upper, number(11)), rise)
        lit = builder.mul(builder.lshr(total, number(14)), spread(light))
        lit = builder.lshr(builder.add(lit, number(1 << 19)), number(20))
        lit = builder.select(builder.icmp_unsigned("<", lit, number(255)), lit, number(255))
        lit = builder.select(is_inside, lit, number(0))
        bytes_ = ir.VectorType(ir.IntType(8), CELLS)
        into = builder.inttoptr(target, bytes_.as_pointer())
        builder.store(builder.trunc(lit, bytes_), into, align=1)
        return context.get_dummy_value()

    pair = types.UniTuple(types.int64, 2)
    signature = types.void(
        *(types.uintp, types.uintp, types.int64, pair, pair, types.int64, types.int64)
    )
    return signature, emit


@intrinsic
def clear(_context, target):
    """Set LANES bytes to 0."""
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, addresses):
        _, into = _vector(ir, builder, addresses[0])
        builder.store(ir.Constant(ir.VectorType(ir.IntType(8), LANES), None), into, align=1)
        return context.get_dummy_value()

    return types.void(types.uintp), emit


@intrinsic
def count_bits(_context, mask):
    """Count the bits that are set."""
    from numba import types

    def emit(_context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), emit


@intrinsic
def lowest_bit(_context, mask):
    """Return the place of the lowest bit that is set; 32 if none is."""
    from llvmlite import ir
    from numba import types

    def emit(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.uint32(types.uint32), emit


@intrinsic
def highest_bit(_context, mask):
    """Return the place of the highest bit that is set, which there must be."""
    from llvmlite import ir
    from numba import types

    def emit(_context, builder, _signature, arguments):
        return builder.sub(ir.IntType(32)(31), builder.ctlz(arguments[0], ir.IntType(1)(0)))

    return types.uint32(types.uint32), emit
