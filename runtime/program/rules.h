// The rules that the op table names, one block per family (rules_<family>.cpp): shape checks, flops
// of matrix products, gradients. Nothing outside op_table.cpp includes this.
// Path: cold.
#pragma once

#include "runtime/program/op_table.h"

namespace plumb::rules {

// Throws Error naming op and operand unless dims agree; `what` names the pair.
void require_dim(const Op& op, const char* what, int64_t found, int64_t expected);
void require_rank(const Op& op, const char* operand, const Shape& shape, int rank);

void require_same(const Op& op, const char* what, const Shape& a, const Shape& b);
// Checks the optional operand that names each row's sequence; returns how many sequences there are:
// `found` with the operand, a row each without.
int64_t check_sequences(const Op& op, const Shape& sequences, int64_t rows, int64_t found);

void check_embed(const Op& op, const Shape* shape);
void check_embed_backward(const Op& op, const Shape* shape);
void gradient_embed(Gradient& g, const Op& op);

void check_norm(const Op& op, const Shape* shape);
void check_norm_backward(const Op& op, const Shape* shape);
void gradient_norm(Gradient& g, const Op& op);

void check_matmul(const Op& op, const Shape* shape);
void check_matmul_dx(const Op& op, const Shape* shape);
void check_matmul_dw(const Op& op, const Shape* shape);
double flops_matmul(const Op& op, const Shape* shape);
double flops_matmul_dx(const Op& op, const Shape* shape);
double flops_matmul_dw(const Op& op, const Shape* shape);
void gradient_matmul(Gradient& g, const Op& op);

void check_same_two(const Op& op, const Shape* shape);
void gradient_gelu(Gradient& g, const Op& op);
void check_swiglu(const Op& op, const Shape* shape);
void check_swiglu_backward(const Op& op, const Shape* shape);
void gradient_swiglu(Gradient& g, const Op& op);

void check_rope(const Op& op, const Shape* shape);
void gradient_rope(Gradient& g, const Op& op);
void check_attention(const Op& op, const Shape* shape);
void check_attention_backward(const Op& op, const Shape* shape);
void check_attention_cached(const Op& op, const Shape* shape);
double flops_attention(const Op& op, const Shape* shape);
double flops_attention_backward(const Op& op, const Shape* shape);
double flops_attention_cached(const Op& op, const Shape* shape);
void gradient_attention(Gradient& g, const Op& op);

void check_head_loss(const Op& op, const Shape* shape);
void check_head_loss_backward(const Op& op, const Shape* shape);
double flops_head_loss(const Op& op, const Shape* shape);
double flops_head_loss_backward(const Op& op, const Shape* shape);
void gradient_head_loss(Gradient& g, const Op& op);
void check_select_rows(const Op& op, const Shape* shape);
void check_sample(const Op& op, const Shape* shape);

void check_grad_norm(const Op& op, const Shape* shape);
void check_clip(const Op& op, const Shape* shape);
void check_adamw(const Op& op, const Shape* shape);
void check_loss_scale(const Op& op, const Shape* shape);
void check_init(const Op& op, const Shape* shape);
void check_digest(const Op& op, const Shape* shape);
void check_nothing(const Op& op, const Shape* shape);

}  // namespace plumb::rules
