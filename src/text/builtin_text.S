// The bytes of data/calibration.txt between two symbols; builtin.cpp hands them out.
        .section .rodata
        .global signround_calibration_begin
        .global signround_calibration_end
signround_calibration_begin:
        .incbin "data/calibration.txt"
signround_calibration_end:
        .section .note.GNU-stack,"",%progbits
