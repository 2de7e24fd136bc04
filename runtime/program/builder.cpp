#include "runtime/program/builder.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/checked.h"
#include "runtime/program/op_table.h"

namespace plumb {

namespace {

int64_t shape_bytes(const Shape& shape, Dtype dtype, const std::string& name) {
    int64_t elements = 1;
    for (int i = 0; i < shape.rank; ++i)
        elements = checked_mul(elements, shape.dim[i], name.c_str());
    return checked_mul(elements, dtype_bytes(dtype), name.c_str());
}

}  // namespace

void Builder::begin_unit(std::string name) {
    Unit unit;
    unit.name = std::move(name);
    program_.units.push_back(std::move(unit));
}

ParamId Builder::declare(Param param, int uses) {
    CHECK(!program_.units.empty());
    Unit& unit = program_.units.back();
    CHECK_NOTE(!allocated_, "parameters are declared before allocate_units");
    const auto id = static_cast<ParamId>(program_.params.size());
    param.unit = static_cast<UnitId>(program_.units.size()) - 1;
    param.further_uses.resize(static_cast<size_t>(uses - 1));
    // As many bytes as the widest copy has.
    shape_bytes(param.shape, Dtype::f32, param.name);
    unit.params.push_back(id);
    program_.params.push_back(std::move(param));
    return id;
}

// Gives the parameters of a unit their places: matrices first.
void Builder::lay_out(Unit* unit) {
    std::stable_partition(unit->params.begin(), unit->params.end(), [&](ParamId id) {
        return program_.params[static_cast<size_t>(id)].is_matrix();
    });
    for (const ParamId id : unit->params) {
        Param& param = program_.params[static_cast<size_t>(id)];
        param.unit_offset = unit->elements;
        unit->elements = checked_add(unit->elements, param.elements(), unit->name.c_str());
        if (param.is_matrix()) unit->matrix_elements = unit->elements;
    }
}

void Builder::allocate_units(const StateNeeds& needs) {
    CHECK(!allocated_);
    allocated_ = true;
    needs_ = needs;
    for (size_t u = 0; u < program_.units.size(); ++u) {
        Unit made = program_.units[u];
        lay_out(&made);
        const auto add = [&](const char* what, Dtype dtype, int64_t elements, Role role) {
            return elements == 0 ? kNoTensor
                                 : tensor(made.name + what, dtype, make_shape(elements), role);
        };
        made.weight = add(".weights", needs.dtype, made.matrix_elements, Role::weight);
        made.vectors =
            add(".vectors", Dtype::f32, made.elements - made.matrix_elements, Role::weight);
        const bool trains = std::any_of(made.params.begin(), made.params.end(), [&](ParamId id) {
            return program_.params[static_cast<size_t>(id)].trainable;
        });
        if (needs.training && trains) {
            if (needs.dtype != Dtype::f32)
                made.master =
                    add(".master", master_dtype(needs.dtype), made.matrix_elements, Role::master);
            made.grad = add(".grads", Dtype::f32, made.elements, Role::grad);
            if (needs.gradient_parts)
                made.grad_part = add(".grad_parts", Dtype::f32, made.elements, Role::grad);
            made.moment1 = add(".moment1", Dtype::f32, made.elements, Role::moment);
            made.moment2 = add(".moment2", Dtype::f32, made.elements, Role::moment);
        }
        program_.units[u] = std::move(made);
    }
    for (Param& param : program_.params) {
        const Unit& unit = program_.units[static_cast<size_t>(param.unit)];
        param.weight = unit_view(param.name, param, UnitTensor::weight, param.shape);
        if (unit.grad == kNoTensor) continue;
        if (unit.master != kNoTensor && param.is_matrix())
            param.master =
                unit_view(param.name + ".master", param, UnitTensor::master, param.shape);
        param.grad = unit_view(param.name + ".grad", param, UnitTensor::grad, param.shape);
        param.moment1 = unit_view(param.name + ".moment1", param, UnitTensor::moment1, param.shape);
        param.moment2 = unit_view(param.name + ".moment2", param, UnitTensor::moment2, param.shape);
        for (size_t use = 0; needs.gradient_parts && use < param.further_uses.size(); ++use) {
            const std::string suffix = ".use" + std::to_string(use + 1);
            param.further_uses[use].grad =
                tensor(param.name + ".grad" + suffix, Dtype::f32, param.shape, Role::grad);
            param.further_uses[use].part =
                tensor(param.name + ".grad_part" + suffix, Dtype::f32, param.shape, Role::grad);
        }
    }
}

TensorId Builder::unit_view(std::string name, const Param& first, UnitTensor what,
                            const Shape& shape) {
    const Unit& unit = program_.units[static_cast<size_t>(first.unit)];
    const bool weights = what == UnitTensor::weight;
    TensorId of = kNoTensor;
    switch (what) {
        case UnitTensor::weight:
            of = first.is_matrix() ? unit.weight : unit.vectors;
            break;
        case UnitTensor::master:
            of = unit.master;
            break;
        case UnitTensor::grad:
            of = unit.grad;
            break;
        case UnitTensor::grad_part:
            of = unit.grad_part;
            break;
        case UnitTensor::moment1:
            of = unit.moment1;
            break;
        case UnitTensor::moment2:
            of = unit.moment2;
            break;
    }
    const int64_t offset =
        first.unit_offset - (weights && !first.is_matrix() ? unit.matrix_elements : 0);
    return view(std::move(name), of, shape, offset * dtype_bytes(at(of).dtype));
}

// A view of weights from the first element of `first` on, and one of their gradients beside it.
TensorId Builder::add_weight(const std::string& name, const Param& param, const Shape& shape,
                             int use) {
    const Param first = param;
    const bool parts = needs_.gradient_parts;
    const TensorId made = unit_view(name, first, UnitTensor::weight, shape);
    TensorId grad = kNoTensor;
    if (first.grad != kNoTensor && first.trainable) {
        if (use > 0 && parts)
            grad = first.further_uses[static_cast<size_t>(use) - 1].part;
        else
            grad = unit_view(name + (parts ? ".grad_part" : ".grad"), first,
                             parts ? UnitTensor::grad_part : UnitTensor::grad, shape);
    }
    grad_view_.resize(program_.tensors.size(), kNoTensor);
    grad_view_[static_cast<size_t>(made)] = grad;
    return made;
}

TensorId Builder::weight(ParamId id, int use) {
    const Param& param = program_.params[static_cast<size_t>(id)];
    CHECK(use >= 0 && static_cast<size_t>(use) <= param.further_uses.size());
    return add_weight(param.name, param, param.shape, use);
}

TensorId Builder::weight(std::initializer_list<ParamId> ids) {
    const Param& first = program_.params[static_cast<size_t>(*ids.begin())];
    Shape shape = first.shape;
    int64_t next = first.unit_offset;
    shape.dim[0] = 0;
    for (const ParamId id : ids) {
        const Param& param = program_.params[static_cast<size_t>(id)];
        CHECK_NOTE(param.unit == first.unit && param.unit_offset == next, "not adjacent");
        CHECK(param.shape.rank == shape.rank && param.trainable == first.trainable);
        for (int i = 1; i < shape.rank; ++i) CHECK(param.shape.dim[i] == shape.dim[i]);
        shape.dim[0] += param.shape.dim[0];
        next += param.elements();
    }
    return add_weight(first.name + "+" + std::to_string(ids.size() - 1), first, shape, 0);
}

TensorId Builder::weight_grad(TensorId weight) {
    if (weight == kNoTensor || static_cast<size_t>(weight) >= grad_view_.size()) return kNoTensor;
    return grad_view_[static_cast<size_t>(weight)];
}

TensorId Builder::tensor(std::string name, Dtype dtype, const Shape& shape, Role role) {
    Tensor made;
    made.size_bytes = shape_bytes(shape, dtype, name);
    made.name = std::move(name);
    made.shape = shape;
    made.dtype = dtype;
    made.role = role;
    if (belongs_to_section(role)) {
        CHECK_NOTE(section_ >= 0, "a tensor of a section is made inside it");
        made.section = section_;
    }
    program_.tensors.push_back(std::move(made));
    return static_cast<TensorId>(program_.tensors.size()) - 1;
}

TensorId Builder::view(std::string name, TensorId of, const Shape& shape, int64_t offset_bytes) {
    const TensorId root = program_.root(of);
    Tensor made = at(root);
    made.alias_offset_bytes = program_.root_offset_bytes(of) + offset_bytes;
    made.alias_of = root;
    made.name = std::move(name);
    made.shape = shape;
    made.size_bytes = shape_bytes(shape, made.dtype, made.name);
    CHECK(made.alias_offset_bytes + made.size_bytes <= at(root).size_bytes);
    program_.tensors.push_back(std::move(made));
    return static_cast<TensorId>(program_.tensors.size()) - 1;
}

SectionId Builder::begin_section(SectionKind kind, std::string name, int32_t chunk, UnitId unit) {
    CHECK(section_ < 0);
    Section section;
    section.name = std::move(name);
    section.kind = kind;
    section.chunk = chunk;
    section.unit = unit;
    section.first_op = static_cast<int32_t>(program_.ops.size());
    program_.sections.push_back(std::move(section));
    section_ = static_cast<SectionId>(program_.sections.size()) - 1;
    if (kind == SectionKind::forward) tape_.clear();
    return section_;
}

void Builder::end_section() {
    CHECK(section_ >= 0 && segment_ < 0);
    Section& section = program_.sections[static_cast<size_t>(section_)];
    section.op_count = static_cast<int32_t>(program_.ops.size()) - section.first_op;
    section_ = -1;
    scope_.clear();
}

void Builder::recompute_begin() {
    CHECK(segment_ < 0);
    segment_ = segment_count_++;
}

void Builder::recompute_end() {
    CHECK(segment_ >= 0);
    segment_ = -1;
}

std::vector<TapeEntry> Builder::take_tape() {
    return std::move(tape_);
}

// That of the first operand that has it; f32 for ops without any.
Dtype Builder::value_dtype(const OpRow& row, const Op& op) const {
    for (int i = 0; i < row.operand_count; ++i)
        if (row.operand[i].rule == DtypeRule::value && op.operand[i] != kNoTensor)
            return at(op.operand[i]).dtype;
    return Dtype::f32;
}

void Builder::record(OpKind kind, const Attrs& attrs, std::span<const TensorId> operands) {
    CHECK_NOTE(section_ >= 0, "ops are recorded inside a section");
    const OpRow& row = op_row(kind);
    CHECK(static_cast<int>(operands.size()) == row.operand_count);
    Op op;
    op.kind = kind;
    op.attrs = attrs;
    op.operand_count = static_cast<int16_t>(row.operand_count);
    op.lane = row.lane;
    std::copy(operands.begin(), operands.end(), op.operand);
    for (int i = 0; i < row.operand_count; ++i) {
        if (op.operand[i] == kNoTensor) {
            CHECK_NOTE(row.operand[i].optional, row.name);
            continue;
        }
    }
    op.dtype = value_dtype(row, op);
    for (int i = 0; i < row.operand_count; ++i)
        if (op.operand[i] != kNoTensor)
            CHECK_NOTE(at(op.operand[i]).dtype == operand_dtype(op, i), row.name);
    Shape shape[kMaxOperands];
    operand_shapes(program_, op, shape);
    row.check_shapes(op, shape);
    const bool forward =
        program_.sections[static_cast<size_t>(section_)].kind == SectionKind::forward;
    if (forward) tape_.push_back({op, segment_});
    if (!(forward && row.deferred)) append(op);
}

void Builder::append(const Op& recorded) {
    Op op = recorded;
    Shape shape[kMaxOperands];
    operand_shapes(program_, op, shape);
    const int64_t bytes = traits_.scratch_bytes(op, shape, device_);
    op.scratch = kNoTensor;
    if (bytes > 0)
        op.scratch = tensor(std::string(op_row(op.kind).name) + ".scratch", Dtype::u8,
                            make_shape(bytes), Role::scratch);
    program_.ops.push_back(op);
}

TensorId Builder::make_activation(const char* what, const Shape& shape, Dtype dtype) {
    return tensor(scope_.empty() ? what : scope_ + "." + what, dtype, shape, Role::activation);
}

TensorId Builder::embed(TensorId wte, TensorId wpe, TensorId tokens, TensorId positions) {
    const Shape& token_shape = shape(tokens);
    const TensorId x = make_activation(
        "embed", make_shape(token_shape.dim[0], token_shape.dim[1], shape(wte).dim[1]),
        at(wte).dtype);
    record(OpKind::embed, {}, {x, wte, wpe, tokens, wpe == kNoTensor ? kNoTensor : positions});
    return x;
}

TensorId Builder::norm(NormKind kind, double eps, TensorId x, TensorId gamma, TensorId beta) {
    const Shape x_shape = shape(x);
    Shape stats_shape = x_shape;
    stats_shape.dim[x_shape.rank - 1] = 2;
    const TensorId y = make_activation("norm", x_shape, at(x).dtype);
    const TensorId stats = make_activation("norm_stats", stats_shape, Dtype::f32);
    Attrs attrs;
    attrs.norm = {eps, kind, 0};
    record(OpKind::norm, attrs, {y, stats, x, gamma, beta});
    return y;
}

TensorId Builder::matmul(TensorId x, TensorId w, TensorId bias, TensorId residual,
                         Activation activation) {
    Shape y_shape = shape(x);
    y_shape.dim[y_shape.rank - 1] = shape(w).dim[0];
    const TensorId y = make_activation("matmul", y_shape, at(x).dtype);
    const TensorId pre = activation == Activation::none
                             ? kNoTensor
                             : make_activation("pre_activation", y_shape, at(x).dtype);
    // Whoever shares a decode must not change a sequence's bits.
    const Section& section = program_.sections[static_cast<size_t>(section_)];
    Attrs attrs;
    attrs.matmul = {activation, 0, 0, section.kind == SectionKind::decode ? 1 : 0};
    record(OpKind::matmul, attrs, {y, pre, x, w, bias, residual});
    return y;
}

TensorId Builder::gelu(TensorId x) {
    const TensorId y = make_activation("gelu", shape(x), at(x).dtype);
    record(OpKind::gelu, {}, {y, x});
    return y;
}

TensorId Builder::swiglu(TensorId gate_up) {
    Shape h_shape = shape(gate_up);
    h_shape.dim[h_shape.rank - 1] /= 2;
    const TensorId h = make_activation("swiglu", h_shape, at(gate_up).dtype);
    record(OpKind::swiglu, {}, {h, gate_up});
    return h;
}

void Builder::rope(TensorId qkv, TensorId positions, const AttentionAttrs& attention) {
    Attrs attrs;
    attrs.attention = attention;
    record(OpKind::rope, attrs, {qkv, positions});
}

TensorId Builder::attention(TensorId qkv, TensorId segment_start, const AttentionAttrs& attention) {
    const Shape s = shape(qkv);
    const int64_t width = int64_t{attention.heads} * attention.head_size;
    const TensorId o =
        make_activation("attention", make_shape(s.dim[0], s.dim[1], width), at(qkv).dtype);
    const TensorId lse = make_activation(
        "attention_lse", make_shape(s.dim[0], attention.heads, s.dim[1]), Dtype::f32);
    Attrs attrs;
    attrs.attention = attention;
    record(OpKind::attention, attrs, {o, lse, qkv, segment_start});
    return o;
}

TensorId Builder::attention_cached(TensorId qkv, TensorId k_cache, TensorId v_cache,
                                   TensorId positions, TensorId sequences,
                                   const AttentionAttrs& attention) {
    const Shape s = shape(qkv);
    const int64_t width = int64_t{attention.heads} * attention.head_size;
    const TensorId o =
        make_activation("attention", make_shape(s.dim[0], s.dim[1], width), at(qkv).dtype);
    Attrs attrs;
    attrs.attention = attention;
    record(OpKind::attention_cached, attrs, {o, k_cache, v_cache, qkv, positions, sequences});
    return o;
}

void Builder::head_loss(TensorId loss, TensorId x, TensorId w, TensorId targets,
                        TensorId loss_weights, TensorId loss_scale, int64_t chunk) {
    Attrs attrs;
    attrs.loss = {chunk};
    record(OpKind::head_loss, attrs, {loss, x, w, targets, loss_weights, loss_scale});
}

TensorId Builder::select_rows(TensorId x, TensorId rows) {
    const Shape s = shape(x);
    const TensorId y = make_activation("last", make_shape(s.dim[0], s.dim[2]), at(x).dtype);
    record(OpKind::select_rows, {}, {y, x, rows});
    return y;
}

// An optional output is kept only when some op reads or updates it afterwards.
void Builder::drop_unread_outputs() {
    std::vector<char> read(program_.tensors.size(), 0);
    for (const Op& op : program_.ops) {
        for (int i = 0; i < op.operand_count; ++i)
            if (op.operand[i] != kNoTensor && operand_access(op, i) != Access::write)
                read[static_cast<size_t>(program_.root(op.operand[i]))] = 1;
    }
    for (Op& op : program_.ops) {
        const OpRow& row = op_row(op.kind);
        for (int i = 0; i < row.operand_count; ++i) {
            const bool optional_output =
                row.operand[i].optional && operand_access(op, i) == Access::write;
            if (optional_output && op.operand[i] != kNoTensor &&
                !read[static_cast<size_t>(program_.root(op.operand[i]))])
                op.operand[i] = kNoTensor;
        }
    }
}

void Builder::mark_saved() {
    for (size_t s = 0; s < program_.sections.size(); ++s) {
        const Section& section = program_.sections[s];
        for (int32_t i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = program_.ops[static_cast<size_t>(i)];
            for (int k = 0; k < op.operand_count; ++k) {
                if (op.operand[k] == kNoTensor) continue;
                Tensor& root = program_.tensors[static_cast<size_t>(program_.root(op.operand[k]))];
                if (root.section < 0 || root.section == static_cast<SectionId>(s)) continue;
                CHECK_NOTE(section.kind == SectionKind::backward, root.name.c_str());
                root.role = Role::saved;
                root.slot_class = SlotClass::forward_backward;
            }
        }
    }
    for (Tensor& tensor : program_.tensors) {
        if (tensor.alias_of == kNoTensor) continue;
        const Tensor& root = program_.tensors[static_cast<size_t>(tensor.alias_of)];
        tensor.role = root.role;
        tensor.slot_class = root.slot_class;
    }
}

Program Builder::finish() {
    CHECK(section_ < 0);
    drop_unread_outputs();
    mark_saved();
    return std::move(program_);
}

}  // namespace plumb
