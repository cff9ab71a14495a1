"""The metadata files: EPU's XML and SerialEM's mdoc, with their real namespaces, keys and units."""

from __future__ import annotations

from string import Template

from frazil.simulator.naming import Place
from frazil.simulator.parameters import SimulationParameters

_EPU = Template("""<?xml version="1.0" encoding="utf-8"?>
<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects" \
xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
  <CustomData xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">
    <a:KeyValueOfstringanyType><a:Key>Dose</a:Key>\
<a:Value i:type="b:double" xmlns:b="http://www.w3.org/2001/XMLSchema">$dose</a:Value></a:KeyValueOfstringanyType>
    <a:KeyValueOfstringanyType><a:Key>DetectorCommercialName</a:Key>\
<a:Value i:type="b:string" xmlns:b="http://www.w3.org/2001/XMLSchema">Simulated</a:Value></a:KeyValueOfstringanyType>
    <a:KeyValueOfstringanyType><a:Key>PhasePlateUsed</a:Key>\
<a:Value i:type="b:boolean" xmlns:b="http://www.w3.org/2001/XMLSchema">false</a:Value></a:KeyValueOfstringanyType>
  </CustomData>
  <microscopeData>
    <acquisition>
      <acquisitionDateTime>$time</acquisitionDateTime>
      <camera>
        <Binning xmlns:a="http://schemas.datacontract.org/2004/07/System.Drawing"><a:x>1</a:x><a:y>1</a:y></Binning>
        <CameraSpecificInput xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">
          <a:KeyValueOfstringanyType><a:Key>FractionationSettings</a:Key>\
<a:Value i:type="b:DoseFractionsFractionation" \
xmlns:b="http://schemas.datacontract.org/2004/07/Fei.Applications.Common.Omp.Interface">\
<b:NumberOffractions>$frames</b:NumberOffractions></a:Value></a:KeyValueOfstringanyType>
        </CameraSpecificInput>
        <ExposureTime>$seconds</ExposureTime>
        <Name>BM-Simulated</Name>
        <ReadoutArea xmlns:a="http://schemas.datacontract.org/2004/07/System.Drawing">\
<a:height>$height</a:height><a:width>$width</a:width><a:x>0</a:x><a:y>0</a:y></ReadoutArea>
      </camera>
    </acquisition>
    <core><ApplicationSoftware>Frazil simulator</ApplicationSoftware></core>
    <gun><AccelerationVoltage>$volts</AccelerationVoltage></gun>
    <optics>
      <BeamShift xmlns:a="http://schemas.datacontract.org/2004/07/Fei.Types">\
<a:_x>$shift_x</a:_x><a:_y>$shift_y</a:_y></BeamShift>
      <TemMagnification><NominalMagnification>81000</NominalMagnification></TemMagnification>
    </optics>
    <stage><Position><A>0</A><B>0</B><X>$stage_x</X><Y>$stage_y</Y><Z>0</Z></Position></stage>
  </microscopeData>
  <SpatialScale>
    <pixelSize>
      <x><numericValue>$pixel</numericValue><unit xmlns:a="http://schemas.datacontract.org/2004/07/Fei.Types">\
<a:_code>m</a:_code></unit></x>
      <y><numericValue>$pixel</numericValue><unit xmlns:a="http://schemas.datacontract.org/2004/07/Fei.Types">\
<a:_code>m</a:_code></unit></y>
    </pixelSize>
  </SpatialScale>
</MicroscopeImage>
""")

_MDOC = Template("""T = SerialEM: simulated by Frazil

[T = Frazil simulator]

[FrameSet = 0]
TiltAngle = 0.0
StagePosition = $stage_x $stage_y
StageZ = 0
Magnification = 81000
Voltage = $kilovolts
ExposureDose = $dose
PixelSpacing = $pixel
SpotSize = 4
ImageShift = $shift_x $shift_y
RotationAngle = 0
ExposureTime = $seconds
Binning = 1
UncroppedSize = -$width -$height
NumSubFrames = $frames
FrameDosesAndNumber = $frame_dose $frames
DateTime = $time
SubFramePath = X:\\frames\\$movie
GainReference = $gain
DefectFile = defects.txt
""")


def epu_xml(parameters: SimulationParameters, place: Place) -> str:
    """Return EPU's XML of one movie: dose in e/m², voltage in V, pixel size and stage position in m."""
    stage, shift = place.stage_um, place.beam_shift
    total_dose = parameters.dose_per_frame_e_per_angstrom2 * parameters.frame_count
    return _EPU.substitute(
        dose=repr(total_dose * 1e20),
        time=f"{place.acquired_at:%Y-%m-%dT%H:%M:%S}.0000000+00:00",
        frames=parameters.frame_count,
        seconds=f"{0.08 * parameters.frame_count:.3f}",
        height=parameters.height_px,
        width=parameters.width_px,
        volts=f"{parameters.voltage_kv * 1e3:.0f}",
        shift_x=shift[0],
        shift_y=shift[1],
        stage_x=repr(stage[0] * 1e-6),
        stage_y=repr(stage[1] * 1e-6),
        pixel=repr(parameters.pixel_size_angstrom * 1e-10),
    )


def serialem_mdoc(parameters: SimulationParameters, place: Place, movie_name: str, gain_name: str) -> str:
    """Return SerialEM's mdoc of one movie: dose in e/Å², voltage in kV, pixel spacing in Å, stage position in µm."""
    stage, shift = place.stage_um, place.beam_shift
    return _MDOC.substitute(
        stage_x=stage[0],
        stage_y=stage[1],
        kilovolts=f"{parameters.voltage_kv:.0f}",
        dose=f"{parameters.dose_per_frame_e_per_angstrom2 * parameters.frame_count:.4f}",
        pixel=parameters.pixel_size_angstrom,
        shift_x=shift[0],
        shift_y=shift[1],
        seconds=f"{0.08 * parameters.frame_count:.3f}",
        width=parameters.width_px,
        height=parameters.height_px,
        frames=parameters.frame_count,
        frame_dose=parameters.dose_per_frame_e_per_angstrom2,
        time=f"{place.acquired_at:%d-%b-%Y  %H:%M:%S}",
        movie=movie_name,
        gain=gain_name,
    )
