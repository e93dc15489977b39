#!/usr/bin/env python3
"""Writes the seeds tests/corpus/{json,safetensors}/NAME: small inputs, each with one trait that a reader may get wrong."""
import os
import struct

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "corpus")

JSON = {
    "y_config": b'{\n  "architectures": ["LlamaForCausalLM"],\n  "hidden_size": 64,\n  "rms_norm_eps": 1e-05,\n'
                b'  "rope_scaling": null,\n  "tie_word_embeddings": true\n}\n',
    "y_many_members": b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(40)) + b"}",
    "y_numbers": b"[0,-0,1.5,1e400,-1E-7,9007199254740993,9223372036854775808,18446744073709551616,"
                 b"123456789012345678901234567890]",
    "y_escapes": rb'["\"\\\/\b\f\n\r\t\u0000\u00e9\u20ac\ud83d\ude00"]',
    "y_utf8": '["é€😀\u2028\ufeff"]'.encode(),
    "y_empty": b' [ { } , [ ] , "" , { "" : null } ] ',
    "y_deep": b"[" * 64 + b"]" * 64,
    "y_tokenizer": b'{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]},'
                   b'"added_tokens":[{"id":3,"content":"<s>"}]}',
    "n_too_deep": b"[" * 65 + b"]" * 65,
    "n_truncated": b'{"a":[1,{"b":"c',
    "n_trailing_comma": b'[1,2,]',
    "n_duplicate_key": rb'{"t":1,"\u0074":2}',
    "n_nul_in_key": rb'{"a\u0000":1}',
    "n_lone_surrogate": rb'"\ud800"',
    "n_surrogate_pair_broken": rb'"\ud83d\u0041"',
    "n_overlong_utf8": b'"\xc0\x80"',
    "n_surrogate_utf8": b'"\xed\xa0\x80"',
    "n_byte_order_mark": b"\xef\xbb\xbf{}",
    "n_raw_control": b'"a\nb"',
    "n_leading_zero": b"[01]",
    "n_nan": b"[NaN]",
    "n_two_values": b"{}{}",
    "n_nul_padding": b"{}\0\0",
    "n_comment": b"[1]//x",
}


def entry(name, dtype, shape, begin, end, more=b""):
    return b'"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]%s}' % (name, dtype, shape, begin, end, more)


def tensors(*entries):
    return b"{" + b",".join(entries) + b"}"


def file(header, data):
    return struct.pack("<Q", len(header)) + header + bytes(range(data))


SAFETENSORS = {
    "y_two": file(tensors(b'"__metadata__":{"format":"pt"}', entry(b"a", b"F32", b"[2,2]", 0, 16),
                          entry(b"b", b"BF16", b"[3]", 16, 22)), 22),
    "y_padded": file(tensors(entry(b"a", b"U8", b"[4]", 0, 4)) + b"   ", 4),
    "y_none": file(b"{}", 0),
    "y_scalar": file(tensors(entry(b"s", b"F64", b"[]", 0, 8)), 8),
    "y_zero_size_between": file(tensors(entry(b"b", b"U8", b"[2]", 4, 6), entry(b"e", b"I8", b"[0,3]", 4, 4),
                                        entry(b"a", b"I32", b"[1]", 0, 4)), 6),
    "y_sub_byte": file(tensors(entry(b"f4", b"F4", b"[4]", 0, 2), entry(b"f6", b"F6_E2M3", b"[4]", 2, 5)), 5),
    "y_metadata_null": file(b'{"__metadata__":null}', 0),
    "y_unaligned": file(tensors(entry(b"a", b"U8", b"[1]", 0, 1), entry(b"b", b"F32", b"[1]", 1, 5)), 5),
    "n_short": b"\x08\0\0",
    "n_length_zero": struct.pack("<Q", 0),
    "n_length_past_end": struct.pack("<Q", 100) + b"{}",
    "n_length_wraps": struct.pack("<Q", 2**64 - 8) + b"{}",
    "n_length_limit": struct.pack("<Q", 10**8 + 1) + b"{}",
    "n_no_object": file(b"[]", 0),
    "n_deep": file(tensors(entry(b"a", b"U8", b"[1]", 0, 1, b',"x":' + b"[" * 120 + b"]" * 120)), 1),
    "n_same_name": file(tensors(entry(b"t", b"U8", b"[4]", 0, 4), entry(rb"\u0074", b"U8", b"[4]", 4, 8)), 8),
    "n_product_overflows": file(tensors(entry(b"t", b"F32", b"[4294967296,4294967296]", 0, 0)), 0),
    "n_product_behind_zero": file(tensors(entry(b"t", b"U8", b"[0,281474976710656,281474976710656]", 0, 0)), 0),
    "n_dim_limit": file(tensors(entry(b"t", b"U8", b"[0,18446744073709551615]", 0, 0)), 0),
    "n_rank": file(tensors(entry(b"t", b"U8", b"[1,1,1,1,1,1,1,1,1]", 0, 1)), 1),
    "n_odd_f4": file(tensors(entry(b"t", b"F4", b"[3]", 0, 2)), 2),
    "n_overlap": file(tensors(entry(b"a", b"U8", b"[4]", 0, 4), entry(b"b", b"U8", b"[4]", 2, 6)), 6),
    "n_hole": file(tensors(entry(b"a", b"U8", b"[4]", 0, 4), entry(b"b", b"U8", b"[1]", 5, 6)), 6),
    "n_trailing": file(tensors(entry(b"a", b"U8", b"[4]", 0, 4)), 9),
    "n_short_body": file(tensors(entry(b"a", b"U8", b"[4]", 0, 4)), 3),
    "n_reversed": file(tensors(entry(b"a", b"U8", b"[4]", 4, 0)), 4),
    "n_empty_name": file(tensors(entry(b"", b"U8", b"[1]", 0, 1)), 1),
    "n_control_name": file(tensors(entry(rb"a\u0001", b"U8", b"[1]", 0, 1)), 1),
    "n_unknown_dtype": file(tensors(entry(b"a", b"U7", b"[1]", 0, 1)), 1),
    "n_float_dim": file(tensors(entry(b"a", b"U8", b"[2.0]", 0, 2)), 2),
}

for folder, files in (("json", JSON), ("safetensors", SAFETENSORS)):
    os.makedirs(os.path.join(ROOT, folder), exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(ROOT, folder, name), "wb") as f:
            f.write(content)
