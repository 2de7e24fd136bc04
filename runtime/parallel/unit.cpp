#include "runtime/parallel/unit.h"

#include <string>

namespace plumb {

namespace {

Attrs fold_attrs(bool copy_first) {
    Attrs attrs;
    attrs.state = {};
    attrs.state.copy_first = copy_first ? 1 : 0;
    return attrs;
}

// A run of adjacent parameters of a unit that are treated alike.
struct Piece {
    int64_t first = 0;
    int64_t elements = 0;
    bool decay = false;
    bool trainable = false;
};

std::vector<Piece> pieces_of(const Program& program, const Unit& unit) {
    std::vector<Piece> pieces;
    for (const ParamId id : unit.params) {
        const Param& param = program.params[static_cast<size_t>(id)];
        const bool joins = !pieces.empty() && pieces.back().decay == param.decay &&
                           pieces.back().trainable == param.trainable;
        if (joins) {
            pieces.back().elements += param.elements();
        } else {
            pieces.push_back({param.unit_offset, param.elements(), param.decay, param.trainable});
        }
    }
    return pieces;
}

}  // namespace

void record_fold_parts(Builder& b) {
    for (size_t u = 0; u < b.program().units.size(); ++u) {
        const Unit unit = b.program().units[u];
        if (unit.grad != kNoTensor)
            b.record(OpKind::fold, fold_attrs(true), {unit.grad, unit.grad_part});
    }
    for (size_t p = 0; p < b.program().params.size(); ++p)
        for (const GradUse& use : std::vector<GradUse>(b.program().params[p].further_uses))
            if (use.part != kNoTensor)
                b.record(OpKind::fold, fold_attrs(true), {use.grad, use.part});
}

void record_update(Builder& b, TensorId sum, TensorId clip) {
    for (size_t p = 0; p < b.program().params.size(); ++p) {
        const Param param = b.program().params[p];
        for (const GradUse& use : param.further_uses)
            if (use.grad != kNoTensor)
                b.record(OpKind::fold, fold_attrs(false), {param.grad, use.grad});
    }
    bool begin = true;
    for (size_t u = 0; u < b.program().units.size(); ++u) {
        const Unit unit = b.program().units[u];
        if (unit.grad == kNoTensor) continue;
        Attrs attrs;
        attrs.state = {};
        attrs.state.begin = begin ? 1 : 0;
        b.record(OpKind::grad_norm, attrs, {sum, unit.grad});
        begin = false;
    }
    b.record(OpKind::clip, {}, {clip, sum, kNoTensor});
    for (size_t u = 0; u < b.program().units.size(); ++u) {
        const Unit unit = b.program().units[u];
        if (unit.grad == kNoTensor) continue;
        int number = 0;
        for (const Piece& piece : pieces_of(b.program(), unit)) {
            if (!piece.trainable) continue;
            const std::string name = unit.name + ".piece" + std::to_string(number++);
            const auto part = [&](TensorId of) {
                return b.view(name, of, make_shape(piece.elements),
                              piece.first * dtype_bytes(Dtype::f32));
            };
            Attrs attrs;
            attrs.state = {};
            attrs.state.decay = piece.decay ? 1 : 0;
            b.record(OpKind::adamw, attrs,
                     {part(unit.weight), kNoTensor, part(unit.grad), part(unit.moment1),
                      part(unit.moment2), clip});
        }
    }
}

}  // namespace plumb
