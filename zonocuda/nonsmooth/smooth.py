"""The operations that are known to be smooth where they are defined, so that the chain rule holds through them.

A list of what is safe, not of what is not: an operation that nobody thought of is reported, and no certificate is given
for a program that uses it. At the edge of its domain (a division by 0, the root of 0) such an operation has a gradient
that is not finite, which the certificate looks at as well.
"""

from __future__ import annotations

from typing import Any

_SMOOTH = frozenset(
    """
    alias as_strided broadcast_to clone constant_pad_nd contiguous copy detach diag_embed diagonal expand flip
    im2col lift lift_fresh pad permute pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d
    reflection_pad3d repeat replication_pad1d replication_pad2d replication_pad3d reshape roll rot90 select slice
    split split_with_sizes squeeze t transpose unbind unfold unsafe_chunk unsafe_split unsafe_split_with_sizes
    unsqueeze view _reshape_alias _to_copy _unsafe_view cat stack col2im
    embedding gather index index_add index_copy index_fill index_put index_select masked_fill masked_scatter
    masked_select narrow scatter scatter_add select_scatter slice_scatter take take_along_dim tril triu where
    empty_like full_like new_empty new_empty_strided new_full new_ones new_zeros ones_like zeros_like fill zero
    add addcdiv addcmul cumprod cumsum div lerp mean mul neg pow.Scalar pow.Tensor_Scalar prod reciprocal rsqrt rsub
    sqrt square sub sum trace var var_mean
    addbmm addmm addmv addr baddbmm bmm dot einsum linear matmul mm mv vdot
    atan asinh celu cos cosh erf erfc exp exp2 expm1 gelu log log10 log1p log2 log_sigmoid_forward logaddexp
    logaddexp2 logsumexp mish sigmoid silu sin sinh softplus tan tanh _log_softmax _softmax _safe_softmax
    _convolution conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d
    mkldnn_convolution
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d avg_pool1d avg_pool2d avg_pool3d
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d
    _batch_norm_impl_index _batch_norm_with_update _fused_rms_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training batch_norm cudnn_batch_norm native_batch_norm native_group_norm
    native_layer_norm
    _scaled_dot_product_attention_math _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
    _scaled_dot_product_flash_attention_for_cpu scaled_dot_product_attention
    binary_cross_entropy_with_logits huber_loss mse_loss nll_loss2d_forward nll_loss_forward smooth_l1_loss
    soft_margin_loss mkldnn_rnn_layer
    """.split()  # noqa: SIM905
)


def is_smooth(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation (an overload of torch.ops) is continuously differentiable inside of its domain."""
    if op.namespace not in ("aten", "prim"):
        return False
    name = op._schema.name.partition("::")[2].removesuffix("_")
    if name == "elu":  # alpha (exp(input_scale x) - 1) beside x, both times scale
        given = {argument.name: argument.default_value for argument in op._schema.arguments}
        given |= dict(zip(given, args, strict=False)) | kwargs
        return bool(given["alpha"] * given["input_scale"] == 1)
    return name in _SMOOTH or f"{name}.{op._overloadname}" in _SMOOTH
