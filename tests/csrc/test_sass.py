"""The reader of nvdisasm's listings, on a listing written by hand."""

from __future__ import annotations

from tests.csrc.sass import Loop, access_bytes, read_listing

# A loop in a loop; the outer one calls a division on a path that lies behind the end of the loop.
LISTING = """
	.section	.nv.info._Z4workPf,"",@"SHT_CUDA_INFO"
	.section	.text._Z4workPf,"ax",@progbits
_Z4workPf:
.text._Z4workPf:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P0 EXIT ;
.L_x_0:
        /*0020*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0030*/                   BSSY B0, `(.L_x_3) ;
        /*0040*/               @P1 BRA `(.L_x_2) ;
.L_x_3:
        /*0050*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_1:
        /*0060*/                   LDG.E.CONSTANT R5, desc[UR4][R2.64+0x4] ;
        /*0070*/                   STG.E.U8 desc[UR4][R2.64], R5 ;
        /*0080*/              @!P2 BRA `(.L_x_1) ;
        /*0090*/                   BRA !P3, `(.L_x_0) ;
        /*00a0*/                   EXIT ;
.L_x_2:
        /*00b0*/                   MOV R8, 0xd0 ;
        /*00c0*/                   CALL.REL.NOINC `($__internal_1_$__cuda_sm20_div_s64) ;
        /*00d0*/                   BRA `(.L_x_3) ;
        .weak           $__internal_1_$__cuda_sm20_div_s64
$__internal_1_$__cuda_sm20_div_s64:
        /*00e0*/                   IADD3 R6, R6, 0x1, RZ ;
.L_x_4:
        /*00f0*/              @!P0 BRA `(.L_x_4) ;
        /*0100*/                   RET.REL.NODEC R8 `(_Z4workPf) ;
        /*0110*/                   NOP ;
	.section	.nv.shared.reserved.0,"aw",@nobits
"""


def test_loops_are_found_with_their_instructions_bytes_and_calls() -> None:
    (code,) = read_listing(LISTING).values()
    assert code.instructions == 17
    outer, inner = code.loops
    assert outer == Loop(1, False, 8, 16, {"sm20_div_s64": 1})
    assert outer.integer_divisions == 1
    assert inner == Loop(2, True, 3, 5, {})
    assert str(inner) == "loop of depth 2, innermost: 3 instructions, 5 bytes"


def test_the_bytes_of_an_access_are_read() -> None:
    widths = {"LDG.E": 4, "LDG.E.64.CONSTANT": 8, "STG.E.128": 16, "LDGSTS.E.BYPASS.LTC128B.128": 16, "LDS.128": 0}
    assert {op: access_bytes(op) for op in widths} == widths
